//! What a write may change: the sides of an object, its generation, its status.
//!
//! Follows the strategies of upstream's registry (`pkg/registry/*/strategy.go`).

use serde_json::{Map, Value};

use crate::conform::Empties;
use crate::defaults::fill;
use crate::object::Object;
use crate::resource::Resource;

/// Makes `object` ready to be created: no status where that is a subresource, generation 1 where one is kept,
/// and what every new object of the kind starts with.
pub fn prepare_create(resource: &Resource, object: &mut Object) {
    let metadata = object.metadata_mut();
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    if resource.keeps_generation {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.subresource("status").is_some() && !resource.rules.keeps_status() {
        object.0.remove("status");
    }
    resource.rules.prepare_create(object);
    fill(resource, object);
}

/// Makes `object` ready to replace `old` through `subresource` (empty for the resource itself): what may not
/// change stays as it was, and the generation counts what did.
pub fn prepare_update(resource: &Resource, subresource: &str, object: &mut Object, old: &Object) {
    // The server's own fields are never the client's.
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        keep(object.metadata_mut(), old.0.get("metadata").and_then(Value::as_object), field);
    }
    for field in ["uid", "name", "namespace", "generateName"] {
        if object.meta(field).is_none_or(|value| value == "") {
            keep(object.metadata_mut(), old.0.get("metadata").and_then(Value::as_object), field);
        }
    }
    object.remove_meta("selfLink");
    match subresource {
        "" if resource.subresource("status").is_some() => keep(&mut object.0, Some(&old.0), "status"),
        "" => {}
        "status" => {
            let names: Vec<String> = object.0.keys().chain(old.0.keys()).cloned().collect();
            for name in names.iter().filter(|name| !matches!(name.as_str(), "metadata" | "status")) {
                keep(&mut object.0, Some(&old.0), name);
            }
        }
        // Its decisions are part of the status.
        "approval" => {}
        _ => keep(&mut object.0, Some(&old.0), "status"),
    }
    if resource.custom.is_some() && subresource == "status" {
        keep_metadata(object, old);
    }
    resource.rules.prepare_update(subresource, object, old);
    fill(resource, object);
    if resource.keeps_generation && subresource != "status" {
        // Where nobody writes the status apart, it is as good as any other field.
        let status = resource.custom.is_some() && resource.subresource("status").is_none();
        let plain = Empties::All.without(resource, object).filter(|_| !resource.rules.sees_empties());
        let changed = asks(plain.as_ref().unwrap_or(object)).ne(asks(old))
            || (status && object.0.get("status") != old.0.get("status"))
            || resource.rules.counts_as_change(object, old);
        let generation = old.meta("generation").and_then(Value::as_i64).unwrap_or_default();
        object.set_meta("generation", generation.saturating_add(i64::from(changed)));
    }
}

/// A write of a custom object's status changes none of its metadata but the record of who wrote it.
fn keep_metadata(object: &mut Object, old: &Object) {
    let new = std::mem::take(object.metadata_mut());
    *object.metadata_mut() = old.0.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["managedFields", "resourceVersion"] {
        keep(object.metadata_mut(), Some(&new), field);
    }
}

/// What an object asks for: all but kind, metadata and status.
fn asks(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
    let is_part = |name: &str| !matches!(name, "kind" | "apiVersion" | "metadata" | "status");
    object.0.iter().filter(move |(name, _)| is_part(name))
}

/// Gives `map` the field as it is in `old`.
pub fn keep(map: &mut Map<String, Value>, old: Option<&Map<String, Value>>, field: &str) {
    match old.and_then(|old| old.get(field)) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}
