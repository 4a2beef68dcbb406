//! Taking fields out of an object, and what an applier no longer applies.

use serde_json::{Map, Value};

use super::compare::{field_element, fields_of};
use super::field_set::{FieldSet, Node};
use super::item::item_element;
use super::types::{Atom, Type};

/// `merged` without what its applier owned before (`last`) and nobody owns now (`owned`: by anybody).
pub(super) fn prune(of: Type<'_>, merged: Value, last: &FieldSet, owned: &FieldSet) -> Value {
    if last.is_empty() {
        return merged;
    }
    let merged = Merged::new(of, merged);
    let pruned = merged.without(last);
    let pruned = merged.with_owned(&pruned, owned);
    settled(of, &merged.without_last(&pruned, last), &merged.value, owned)
}

/// What lists and maps are that lost all that they had, which is `null` so far: a map that somebody owns is an empty one,
/// and a list is none, for its owners too.
fn settled(of: Type<'_>, pruned: &Value, merged: &Value, owned: &FieldSet) -> Value {
    let (Atom::Map(fields), Value::Object(left), Value::Object(all)) =
        (of.atom(Some(merged)), pruned, merged)
    else {
        return pruned.clone();
    };
    let none = FieldSet::default();
    let mut kept = Map::with_capacity(left.len());
    for (name, value) in left {
        let node = owned.node(&field_element(name));
        let value = match (value, all.get(name)) {
            (Value::Null, Some(Value::Object(map))) if !map.is_empty() && node.is_some_and(|n| n.member) => {
                Value::Object(Map::new())
            }
            (Value::Null, Some(Value::Array(list))) if !list.is_empty() => continue,
            (value, Some(before)) => {
                settled(fields.of(name), value, before, node.map_or(&none, |node| &node.children))
            }
            (value, None) => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}

/// What came out of a merge, from which goes what its applier no longer applies: what was owned goes; what somebody owns
/// comes back; and only what was owned before stays away.
pub(super) struct Merged<'t> {
    of: Type<'t>,
    pub value: Value,
    all: FieldSet,
}

impl<'t> Merged<'t> {
    pub fn new(of: Type<'t>, value: Value) -> Self {
        let all = with_named_fields(of, &fields_of(of, &value));
        Merged { of, value, all }
    }

    /// All but what the applier owned.
    pub fn without(&self, last: &FieldSet) -> Value {
        without(self.of, &self.value, &with_named_fields(self.of, last))
    }

    /// What is left in `pruned`, and what is owned.
    pub fn with_owned(&self, pruned: &Value, owned: &FieldSet) -> Value {
        let kept = self.fields_in(pruned).union(with_named_fields(self.of, owned));
        without(self.of, &self.value, &self.all.clone().difference(&kept))
    }

    /// All but what isn't in `pruned` and was owned before.
    pub fn without_last(&self, pruned: &Value, last: &FieldSet) -> Value {
        let gone = self.all.clone().difference(&self.fields_in(pruned));
        without(self.of, &self.value, &gone.intersection(&with_named_fields(self.of, last)))
    }

    fn fields_in(&self, value: &Value) -> FieldSet {
        with_named_fields(self.of, &fields_of(self.of, value))
    }
}

/// `value` without the fields of the set. A list or map that loses all it has is `null`.
fn without(of: Type<'_>, value: &Value, gone: &FieldSet) -> Value {
    match (of.atom(Some(value)), value) {
        (Atom::Map(fields), Value::Object(map)) => {
            let mut kept = Map::with_capacity(map.len());
            for (name, value) in map {
                match gone.node(&field_element(name)) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        kept.insert(name.clone(), without(fields.of(name), value, &node.children));
                    }
                    None => {
                        kept.insert(name.clone(), value.clone());
                    }
                }
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Atom::List { keys, items }, Value::Array(list)) => {
            let mut kept = Vec::with_capacity(list.len());
            for item in list {
                let element = item_element(keys, items, item).ok();
                match element.and_then(|element| gone.node(&element)) {
                    Some(node) if node.member => {}
                    Some(node) => kept.push(without(items, item, &node.children)),
                    None => kept.push(item.clone()),
                }
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (_, value) => value.clone(),
    }
}

/// The set with the fields on the way to its paths that the type names: the owner of `spec.replicas` has `spec`
/// there too. Keys of maps and items of lists are owned for themselves.
fn with_named_fields(of: Type<'_>, set: &FieldSet) -> FieldSet {
    let atom = of.atom(None);
    let nodes = set.nodes().iter().map(|node| {
        let name = node.element.strip_prefix("f:");
        let (below, named) = match (atom, name) {
            (Atom::Map(fields), Some(name)) => (fields.of(name), fields.declares(name)),
            (Atom::List { items, .. }, None) => (items, false),
            _ => (Type::Deduced, false),
        };
        let member = node.member || (named && !node.children.is_empty());
        Node { element: node.element.clone(), member, children: with_named_fields(below, &node.children) }
    });
    FieldSet::of_nodes(nodes.collect())
}
