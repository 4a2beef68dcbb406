//! Strategic merge patch: an object merged into another, lists by the keys that the schema names.
//!
//! Follows `k8s.io/apimachinery/pkg/util/strategicpatch`, its directives included: `$patch` (`delete`,
//! `replace`, `merge`), `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`, `$retainKeys`.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::schema::{Field, Schema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// A patch that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("a strategic merge patch must be a JSON object")]
    NoObject,
    #[error("{field}: an item of the patch has no {key:?}, the key that tells items of this list apart")]
    NoKey { field: String, key: &'static str },
    #[error("{field}: {DIRECTIVE} is {directive}, but must be delete, replace or merge")]
    Directive { field: String, directive: String },
    #[error("{field} must be a list")]
    NoList { field: String },
    #[error("{field} is in the patch, but not in its {RETAIN_KEYS}")]
    NotRetained { field: String },
}

/// Merges `patch` into `value`, an object of `schema`.
pub(crate) fn merge_strategic(
    schema: Option<&Schema>,
    value: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else { return Err(PatchError::NoObject) };
    let Value::Object(object) = value else { return Err(PatchError::NoObject) };
    merge_object(schema, object, patch)
}

type Fields = Map<String, Value>;

fn merge_object(schema: Option<&Schema>, object: &mut Fields, patch: &Fields) -> Result<(), PatchError> {
    match directive(patch, DIRECTIVE)? {
        Some("replace") => {
            *object = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        _ => {}
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let no_list = || PatchError::NoList { field: RETAIN_KEYS.to_owned() };
        let kept = kept.as_array().ok_or_else(no_list)?;
        let is_kept = |name: &String| kept.iter().any(|key| key == name);
        let mut said = patch.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
        if let Some((lost, _)) = said.find(|(name, _)| !is_kept(name)) {
            return Err(PatchError::NotRetained { field: lost.clone() });
        }
        object.retain(|name, _| is_kept(name));
    }
    for (name, part) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = part else { return Err(PatchError::NoList { field: name.clone() }) };
            if let Some(Value::Array(items)) = object.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
        }
    }
    for (name, part) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let field = schema.and_then(|schema| schema.field(name));
        let order = patch.get(&format!("{SET_ORDER}{name}"));
        merge_field(field, name, object, part, order)?;
    }
    // An order alone, without a list of that name in the patch.
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(SET_ORDER).filter(|list| !patch.contains_key(*list)) {
            let key = schema.and_then(|schema| schema.field(list)).and_then(|field| field.patch.merge_key);
            if let Some(Value::Array(items)) = object.get_mut(list) {
                let before = items.clone();
                set_order(items, order_of(name, order)?, &before, key);
            }
        }
    }
    Ok(())
}

fn order_of<'a>(name: &str, order: &'a Value) -> Result<&'a [Value], PatchError> {
    order.as_array().map(Vec::as_slice).ok_or_else(|| PatchError::NoList { field: name.to_owned() })
}

fn merge_field(
    field: Option<&Field>,
    name: &str,
    object: &mut Fields,
    part: &Value,
    order: Option<&Value>,
) -> Result<(), PatchError> {
    match (part, field.map(|field| &field.shape)) {
        (Value::Null, _) => {
            object.remove(name);
        }
        (Value::Object(part), shape) => {
            let inner = match shape {
                Some(Shape::Object(of)) => Some(of.get()),
                _ => None,
            };
            let current = object.entry(name).or_insert_with(|| Fields::new().into());
            if !current.is_object() {
                *current = Fields::new().into();
            }
            if let Value::Object(current) = current {
                merge_object(inner, current, part)?;
            }
        }
        (Value::Array(part), Some(Shape::List(items))) if field.is_some_and(|field| field.patch.merge) => {
            let current = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if !current.is_array() {
                *current = Value::Array(Vec::new());
            }
            if let Value::Array(current) = current {
                let before = current.clone();
                let key = field.and_then(|field| field.patch.merge_key);
                match (key, &**items) {
                    (Some(key), Shape::Object(of)) => {
                        merge_list(of.get(), key, name, current, part)?;
                    }
                    _ => merge_set(current, part),
                }
                let order = order.map_or(Ok(part.as_slice()), |order| order_of(name, order))?;
                set_order(current, order, &before, key);
            }
        }
        (Value::Array(part), _) => {
            let items = part.iter().filter(|item| item.get(DIRECTIVE).is_none());
            object.insert(name.to_owned(), items.cloned().collect());
        }
        (part, _) => {
            object.insert(name.to_owned(), part.clone());
        }
    }
    Ok(())
}

/// Merges items into a list whose items are identified by `key`.
fn merge_list(
    schema: &Schema,
    key: &'static str,
    name: &str,
    list: &mut Vec<Value>,
    patch: &[Value],
) -> Result<(), PatchError> {
    let mut replaced = false;
    for item in patch.iter().filter_map(Value::as_object) {
        if directive(item, name)? == Some("replace") {
            replaced = true;
        }
    }
    if replaced {
        *list = patch
            .iter()
            .filter_map(Value::as_object)
            .filter(|item| !item.contains_key(DIRECTIVE))
            .map(|item| without_directives(item).into())
            .collect();
        return Ok(());
    }
    for item in patch {
        let no_key = || PatchError::NoKey { field: name.to_owned(), key };
        let fields = item.as_object().ok_or_else(no_key)?;
        let value = fields.get(key).filter(|value| !value.is_null()).ok_or_else(no_key)?;
        let at = list.iter().position(|known| known.get(key) == Some(value));
        if directive(fields, name)? == Some("delete") {
            list.retain(|known| known.get(key) != Some(value));
            continue;
        }
        match at.and_then(|at| list[at].as_object_mut()) {
            Some(known) => merge_object(Some(schema), known, fields)?,
            None => {
                let mut new = Fields::new();
                merge_object(Some(schema), &mut new, fields)?;
                list.push(new.into());
            }
        }
    }
    Ok(())
}

fn merge_set(list: &mut Vec<Value>, patch: &[Value]) {
    for item in patch {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Orders `items`: those that `order` names as it says, the others as they stood `before`. Where the two meet,
/// an item that `order` names comes first, unless the other one stood before it.
fn set_order(items: &mut Vec<Value>, order: &[Value], before: &[Value], key: Option<&'static str>) {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some_and(|value| b.get(key) == Some(value)),
        None => a == b,
    };
    let place = |item: &Value, list: &[Value]| list.iter().position(|other| same(item, other));
    let (mut named, mut others) = (Vec::new(), VecDeque::new());
    for item in std::mem::take(items) {
        let stood = place(&item, before);
        match place(&item, order) {
            Some(at) => named.push((at, stood, item)),
            None => others.push_back((stood, item)),
        }
    }
    named.sort_by_key(|(at, _, _)| *at);
    for (_, stood, item) in named {
        while let Some((other, _)) = others.front() {
            if stood.is_none() || other.is_none() || *other > stood {
                break;
            }
            items.extend(others.pop_front().map(|(_, item)| item));
        }
        items.push(item);
    }
    items.extend(others.into_iter().map(|(_, item)| item));
}

fn directive<'a>(patch: &'a Fields, field: &str) -> Result<Option<&'a str>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(known)) if matches!(known.as_str(), "delete" | "replace" | "merge") => {
            Ok(Some(known))
        }
        Some(other) => Err(PatchError::Directive { field: field.to_owned(), directive: other.to_string() }),
    }
}

/// A part of a patch as it becomes part of an object.
fn without_directives(patch: &Fields) -> Fields {
    let fields = patch.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}
