//! What a write may change: the sides of an object, its generation, its status.
//!
//! Follows the strategies of upstream's registry (`pkg/registry/*/strategy.go`).

use serde_json::{Map, Value};

use crate::defaults::fill;
use crate::object::Object;
use crate::resource::Resource;

/// Makes `object` ready to be created: no status where that is a subresource, generation 1 where one is kept,
/// and what every new object of the kind starts with.
pub fn prepare_create(resource: &Resource, object: &mut Object) {
    let metadata = object.metadata_mut();
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.shift_remove(field);
    }
    if resource.keeps_generation {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.subresource("status").is_some() && !resource.rules.keeps_status() {
        object.0.shift_remove("status");
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
    resource.rules.prepare_update(subresource, object, old);
    fill(resource, object);
    if resource.keeps_generation && subresource != "status" {
        let changed = asks(object) != asks(old) || resource.rules.counts_as_change(object, old);
        let generation = old.meta("generation").and_then(Value::as_i64).unwrap_or_default();
        object.set_meta("generation", generation.saturating_add(i64::from(changed)));
    }
}

/// What an object asks for: all but kind, metadata and status.
fn asks(object: &Object) -> Vec<(&String, &Value)> {
    let mut parts: Vec<_> = object
        .0
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion" | "metadata" | "status"))
        .collect();
    parts.sort_unstable_by_key(|(name, _)| *name);
    parts
}

/// Gives `map` the field as it is in `old`.
pub(crate) fn keep(map: &mut Map<String, Value>, old: Option<&Map<String, Value>>, field: &str) {
    match old.and_then(|old| old.get(field)) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.shift_remove(field),
    };
}
