//! One object merged into another, as the types say.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::compare::index;
use super::item::item_element;
use super::types::{Atom, Fields, Type};

/// `live` with `patch` merged in: fields of the patch win, items of lists with keys are merged by them, in the
/// patch's order; whatever else there is stays.
pub(super) fn merge(of: Type<'_>, live: &Value, patch: &Value) -> Value {
    let atom = match of.atom(Some(patch)) {
        // A patch of nothing goes with whatever there is.
        Atom::Map(_) if patch.is_null() => of.atom(Some(live)),
        atom => atom,
    };
    match atom {
        Atom::Leaf => patch.clone(),
        Atom::List { keys, items } => {
            let (old, new) = (slice(live), slice(patch));
            if old.is_empty() && new.is_empty() { patch.clone() } else { merge_lists(keys, items, old, new) }
        }
        Atom::Map(fields) => match (live.as_object(), patch.as_object()) {
            (Some(live), Some(patch)) if !(live.is_empty() && patch.is_empty()) => {
                merge_maps(fields, live, patch)
            }
            (Some(live), None) if !live.is_empty() => Value::Object(live.clone()),
            _ => patch.clone(),
        },
    }
}

fn slice(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn merge_maps(fields: Fields<'_>, live: &Map<String, Value>, patch: &Map<String, Value>) -> Value {
    let mut merged = live.clone();
    for (name, value) in patch {
        let value = match live.get(name) {
            Some(live) => merge(fields.of(name), live, value),
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// The order of upstream: items of the patch in the patch's order, the others of the live list where they stood
/// between them.
fn merge_lists(keys: &[Box<str>], items: Type<'_>, live: &[Value], patch: &[Value]) -> Value {
    let elements = |list: &[Value]| -> Vec<Option<Box<str>>> {
        list.iter().map(|item| item_element(keys, items, item).ok()).collect()
    };
    let (old, new) = (elements(live), elements(patch));
    let (known, wanted) = (index(keys, items, live), index(keys, items, patch));
    let merged_item = |element: &Option<Box<str>>, item: &Value| -> Value {
        // Items that stand in the live list more than once are not merged with.
        match element.as_ref().map_or(&[][..], |element| known.all(element)) {
            [(_, live)] => merge(items, live, item),
            _ => item.clone(),
        }
    };
    let is_wanted = |element: &Option<Box<str>>| element.as_ref().is_some_and(|e| !wanted.all(e).is_empty());
    let mut shared = new.iter().filter(|e| e.as_ref().is_some_and(|e| !known.all(e).is_empty()));
    let mut next_shared = shared.next();
    let mut done: HashSet<&str> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len().max(patch.len()));
    let (mut left, mut right) = (0, 0);
    while left < live.len() || right < patch.len() {
        if left < live.len() && right < patch.len() {
            if old[left] == new[right] {
                merged.push(merged_item(&new[right], &patch[right]));
                done.extend(new[right].as_deref());
                (left, right) = (left + 1, right + 1);
                next_shared = shared.next();
                continue;
            }
            if is_wanted(&old[left]) && next_shared.is_some_and(|next| *next != old[left]) {
                left += 1;
                continue;
            }
        }
        if left < live.len() {
            if !is_wanted(&old[left]) {
                merged.push(live[left].clone());
                left += 1;
                continue;
            }
            if old[left].as_deref().is_some_and(|element| done.contains(element)) {
                left += 1;
            }
        }
        if right < patch.len() {
            merged.push(merged_item(&new[right], &patch[right]));
            done.extend(new[right].as_deref());
            if next_shared == Some(&new[right]) {
                next_shared = shared.next();
            }
            right += 1;
        }
    }
    Value::Array(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::StructuralType;

    fn names(live: &[&str], patch: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| -> Value {
            let containers: Value = names.iter().map(|name| json!({"name": name})).collect();
            json!({"spec": {"containers": containers}})
        };
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let containers = json!({"type": "array", "items": item,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]});
        let spec = json!({"type": "object", "properties": {"containers": containers}});
        let pod = StructuralType::of_resource(&json!({"type": "object", "properties": {"spec": spec}}));
        let merged = merge(Type::Structural(&pod), &list(live), &list(patch));
        let containers = merged.pointer("/spec/containers").unwrap().as_array().unwrap();
        containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn lists_keep_the_order_of_the_patch_and_others_where_they_stood() {
        for (live, patch, expected) in [
            (&["a", "b", "c"][..], &["c", "a"][..], &["b", "c", "a"][..]),
            (&["a", "b"], &["c"], &["a", "b", "c"]),
            (&["a", "b", "c"], &["a", "d", "c"], &["a", "b", "d", "c"]),
            (&["a", "b"], &["b", "a"], &["b", "a"]),
            (&[], &["b", "a"], &["b", "a"]),
            (&["x"], &[], &["x"]),
        ] {
            assert_eq!(names(live, patch), expected, "{live:?} {patch:?}");
        }
    }
}
