//! The fields of an object as a set, and those in which two objects differ.

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node, Part};
use super::item::item_element;
use super::types::{Atom, Fields, Type};

/// Every field of `value`: what an applier owns that applies it.
pub(super) fn fields_of(of: Type<'_>, value: &Value) -> FieldSet {
    part_of(of, value).children
}

fn part_of(of: Type<'_>, value: &Value) -> Part {
    match (of.atom(Some(value)), value) {
        (Atom::Leaf, _) => Part::member(),
        (Atom::List { keys, items }, Value::Array(list)) => {
            let nodes = list.iter().filter_map(|item| {
                let element = item_element(keys, items, item).ok()?;
                Some(Node { element, member: true, children: part_of(items, item).children })
            });
            let mut children = FieldSet::of_nodes(nodes.collect());
            children.join_twins();
            Part { member: false, children }
        }
        (Atom::Map(fields), Value::Object(map)) => {
            let nodes = map.iter().map(|(name, value)| {
                let part = part_of(fields.of(name), value);
                let nothing = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let member = part.member || nothing || !fields.declares(name);
                Node { element: field_element(name), member, children: part.children }
            });
            Part { member: false, children: FieldSet::of_nodes(nodes.collect()) }
        }
        _ => Part::default(),
    }
}

pub(super) fn field_element(name: &str) -> Box<str> {
    let mut element = String::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element.into()
}

/// In which fields two objects differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub changed: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

impl Difference {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares the object `old` with `new`.
pub(super) fn compare(of: Type<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Difference {
    let mut parts = Parts::default();
    if let Atom::Map(fields) = of.atom(None) {
        maps(fields, Some(old), Some(new), &mut parts);
    }
    Difference { changed: parts.changed.children, removed: parts.removed.children }
}

#[derive(Default)]
struct Parts {
    changed: Part,
    removed: Part,
}

fn parts(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Parts {
    let mut parts = Parts::default();
    let (before, after) = (of.atom(old), of.atom(new));
    let atom = match (old, new) {
        (_, None) => before,
        (None | Some(Value::Null), _) => after,
        (_, Some(Value::Null)) => before,
        (Some(_), Some(_)) => match (before, after) {
            // A map became something else: what was in it is gone, or what is in it is new.
            (Atom::Map(fields), Atom::Leaf) if of.is_deduced() => {
                maps(fields, old.and_then(Value::as_object), None, &mut parts);
                after
            }
            (Atom::Leaf, Atom::Map(fields)) if of.is_deduced() => {
                maps(fields, None, new.and_then(Value::as_object), &mut parts);
                before
            }
            _ => after,
        },
    };
    let is_leaf = match atom {
        Atom::Leaf => true,
        Atom::List { keys, items } => {
            let (old, new) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            let nothing = old.is_none_or(Vec::is_empty) && new.is_none_or(Vec::is_empty);
            // Most lists are as they were, and their keys need not be made.
            if !nothing && old != new {
                lists(
                    keys,
                    items,
                    old.map_or(&[], Vec::as_slice),
                    new.map_or(&[], Vec::as_slice),
                    &mut parts,
                );
            }
            nothing
        }
        Atom::Map(fields) => {
            let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let nothing = old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty);
            if !nothing {
                maps(fields, old, new, &mut parts);
            }
            nothing
        }
    };
    match (old, new) {
        (None, Some(_)) => parts.changed.member = true,
        (Some(_), None) => parts.removed.member = true,
        _ if is_leaf && old != new => parts.changed.member = true,
        _ => {}
    }
    parts
}

/// Collects what the parts of a list or a map come to.
#[derive(Default)]
struct Collected {
    changed: Vec<Node>,
    removed: Vec<Node>,
}

impl Collected {
    fn add(&mut self, element: impl FnOnce() -> Box<str>, parts: Parts) {
        let Parts { changed, removed } = parts;
        match (changed.is_empty(), removed.is_empty()) {
            (true, true) => {}
            (false, true) => self.changed.push(node(element(), changed)),
            (true, false) => self.removed.push(node(element(), removed)),
            (false, false) => {
                let element = element();
                self.changed.push(node(element.clone(), changed));
                self.removed.push(node(element, removed));
            }
        }
    }

    fn put_into(self, parts: &mut Parts) {
        parts.changed.children = FieldSet::of_nodes(self.changed);
        parts.removed.children = FieldSet::of_nodes(self.removed);
    }
}

fn node(element: Box<str>, part: Part) -> Node {
    Node { element, member: part.member, children: part.children }
}

fn maps(of: Fields<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>, out: &mut Parts) {
    let mut collected = Collected::default();
    for (name, new) in new.into_iter().flatten() {
        let old = old.and_then(|old| old.get(name));
        collected.add(|| field_element(name), parts(of.of(name), old, Some(new)));
    }
    for (name, old) in old.into_iter().flatten() {
        if !new.is_some_and(|new| new.contains_key(name)) {
            collected.add(|| field_element(name), parts(of.of(name), Some(old), None));
        }
    }
    collected.put_into(out);
}

fn lists(keys: &[Box<str>], items: Type<'_>, old: &[Value], new: &[Value], out: &mut Parts) {
    let mut collected = Collected::default();
    let (before, after) = (index(keys, items, old), index(keys, items, new));
    for group in after.groups() {
        let element = &group[0].0;
        let parts = match (before.all(element), group) {
            (old @ ([] | [_]), [new]) => parts(items, old.first().map(|old| old.1), Some(new.1)),
            // An item that stood there more than once was one field, and each is one now.
            (_, [new]) => {
                let mut parts = parts(items, None, Some(new.1));
                parts.removed.member = true;
                parts
            }
            (old @ ([] | [_]), _) => {
                let mut parts =
                    old.first().map_or_else(Parts::default, |old| parts(items, Some(old.1), None));
                parts.changed.member = true;
                parts
            }
            (old, new) => {
                let mut parts = Parts::default();
                parts.changed.member = !old.iter().map(|old| old.1).eq(new.iter().map(|new| new.1));
                parts
            }
        };
        collected.add(|| element.clone(), parts);
    }
    for group in before.groups().filter(|group| after.all(&group[0].0).is_empty()) {
        let parts = match group {
            [old] => parts(items, Some(old.1), None),
            _ => {
                let mut parts = Parts::default();
                parts.removed.member = true;
                parts
            }
        };
        collected.add(|| group[0].0.clone(), parts);
    }
    collected.put_into(out);
}

/// The items of a list in the order of their elements; items that have no key are left out.
pub(super) struct Index<'a>(Vec<(Box<str>, &'a Value)>);

impl<'a> Index<'a> {
    /// The items of one element.
    pub fn all(&self, element: &str) -> &[(Box<str>, &'a Value)] {
        let start = self.0.partition_point(|(other, _)| **other < *element);
        let count = self.0[start..].iter().take_while(|(other, _)| **other == *element).count();
        &self.0[start..start + count]
    }

    fn groups(&self) -> impl Iterator<Item = &[(Box<str>, &'a Value)]> {
        self.0.chunk_by(|a, b| a.0 == b.0)
    }
}

pub(super) fn index<'a>(keys: &[Box<str>], items: Type<'_>, list: &'a [Value]) -> Index<'a> {
    let items = list.iter().filter_map(|item| Some((item_element(keys, items, item).ok()?, item)));
    let mut found: Vec<_> = items.collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Index(found)
}
