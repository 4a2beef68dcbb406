//! The stored form of an object and back: JSON with `kind`, `apiVersion` and `metadata` first and without
//! `metadata.resourceVersion`, which is the revision that wrote it.

use api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Map, Value};
use store::{KeyValue, Revision};

/// The bytes to store for an object.
pub(crate) fn encode(object: &Object) -> Result<Bytes, Status> {
    let mut ordered = Map::with_capacity(object.0.len());
    for key in ["kind", "apiVersion"] {
        if let Some(value) = object.0.get(key) {
            ordered.insert(key.to_owned(), value.clone());
        }
    }
    let mut metadata = object.0.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    if let Value::Object(map) = &mut metadata {
        map.shift_remove("resourceVersion");
    }
    ordered.insert("metadata".to_owned(), metadata);
    for (key, value) in &object.0 {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            ordered.insert(key.clone(), value.clone());
        }
    }
    serde_json::to_vec(&ordered).map(Bytes::from).map_err(Status::internal)
}

/// The object in a stored value, with its resourceVersion.
pub(crate) fn load(kv: &KeyValue) -> Result<Object, Status> {
    let mut object: Object = serde_json::from_slice(&kv.value).map_err(|error| {
        Status::internal(format!(
            "the stored value of {} is damaged: {error}",
            String::from_utf8_lossy(&kv.key)
        ))
    })?;
    object.set_meta("resourceVersion", kv.mod_revision.to_string());
    Ok(object)
}

/// The wire form of a stored object, as of `revision` instead of the one that wrote it: a watch tells
/// deletions so.
pub(crate) fn stamped_at(kv: &KeyValue, revision: Revision) -> Vec<u8> {
    if revision == kv.mod_revision {
        return objects::stamped(kv);
    }
    objects::stamped(&KeyValue { mod_revision: revision, ..kv.clone() })
}

/// The wire form of an object as an item of its kind's list, where upstream leaves `kind` and `apiVersion`
/// out.
pub(crate) fn list_item(resource: &Resource, kv: &KeyValue) -> Vec<u8> {
    let stamped = objects::stamped(kv);
    let head = format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version());
    match stamped.strip_prefix(head.as_bytes()) {
        Some(rest) => [b"{", rest].concat(),
        None => stamped,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_stored_form_starts_with_kind_version_and_metadata() {
        let value = json!({"data": {"metadata": {}}, "metadata": {"resourceVersion": "7", "name": "a"},
            "apiVersion": "v1", "kind": "ConfigMap"});
        let bytes = encode(&Object::from_value(value).unwrap()).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"metadata":{}}}"#
        );
    }
}
