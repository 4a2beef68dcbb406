//! The stored form of an object and back: JSON with `kind`, `apiVersion` and `metadata` first and without
//! `metadata.resourceVersion`, which is the revision that wrote it.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use machinery::{Object, Resource, Status};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use store::{KeyValue, Revision};

use crate::{STAMP, put_stamped};

/// The bytes to store for an object.
///
/// # Errors
/// If it can't be written as JSON.
pub fn encode(object: &Object) -> Result<Bytes, Status> {
    serde_json::to_vec(&Ordered(object)).map(Bytes::from).map_err(Status::internal)
}

/// An object in the stored order.
struct Ordered<'a>(&'a Object);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = &self.0.0;
        let mut map = serializer.serialize_map(None)?;
        for key in ["kind", "apiVersion"] {
            if let Some(value) = object.get(key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("metadata", &StoredMetadata(object.get("metadata").and_then(Value::as_object)))?;
        for (key, value) in object {
            if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// Metadata without its resourceVersion.
struct StoredMetadata<'a>(Option<&'a Map<String, Value>>);

impl Serialize for StoredMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.into_iter().flatten();
        serializer.collect_map(fields.filter(|(key, _)| *key != "resourceVersion"))
    }
}

/// The object in a stored value, with its resourceVersion.
///
/// # Errors
/// If the value is damaged.
pub fn load(kv: &KeyValue) -> Result<Object, Status> {
    let mut object: Object = serde_json::from_slice(&kv.value.bytes()).map_err(|error| {
        Status::internal(format!(
            "the stored value of {} is damaged: {error}",
            String::from_utf8_lossy(&kv.key)
        ))
    })?;
    object.set_meta("resourceVersion", kv.mod_revision.to_string());
    Ok(object)
}

/// As [`load`], for what many requests look at: accounts, classes, namespaces.
///
/// # Errors
/// If the value is damaged.
pub fn look(kv: &Arc<KeyValue>) -> Result<Arc<Object>, Status> {
    type Seen = Option<(Arc<KeyValue>, Arc<Object>)>;
    const PLACES: usize = 32;
    const LARGEST: usize = 8 << 10;
    // Each thread has its own, so that nobody waits for a lock. What meets another in a place is only read once more;
    // and at most 32 times 8 KiB a thread are kept alive of what has been replaced.
    thread_local! {
        static SEEN: RefCell<[Seen; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
    }
    if kv.value.len() > LARGEST {
        return load(kv).map(Arc::new);
    }
    SEEN.with_borrow_mut(|seen| {
        let place = &mut seen[hash_of(&kv.key) as usize % PLACES];
        if let Some((_, object)) = place.as_ref().filter(|(known, _)| Arc::ptr_eq(known, kv)) {
            return Ok(object.clone());
        }
        let object = Arc::new(load(kv)?);
        *place = Some((kv.clone(), object.clone()));
        Ok(object)
    })
}

fn hash_of(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The wire form of a stored object, as of `revision` instead of the one that wrote it: a watch tells
/// deletions so.
pub fn stamped_at(kv: &KeyValue, revision: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(kv.value.len() + STAMP);
    put_stamped(&mut out, &kv.value.bytes(), revision);
    out
}

/// Writes stored objects as the items of their kind's list, where upstream leaves `kind` and `apiVersion` of the
/// kinds that it knows by itself out.
pub fn put_list_items(out: &mut Vec<u8>, resource: &Resource, items: &[Arc<KeyValue>]) {
    let head = format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version());
    for (index, kv) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let value = kv.value.bytes();
        let known = value.strip_prefix(head.as_bytes()).filter(|_| resource.custom().is_none());
        let stored = match known {
            Some(rest) => {
                out.push(b'{');
                rest
            }
            None => &value[..],
        };
        put_stamped(out, stored, kv.mod_revision);
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
