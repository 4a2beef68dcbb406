//! Objects read from a snapshot as typed structs, each decoded once per change.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::Metadata;
use serde::de::DeserializeOwned;
use store::{KeyRange, KeyValue, Revision, State};

use crate::{Meta, key, kind_prefix, namespace_prefix};

/// A typed kind that can be read from the store.
pub trait Kind: k8s_openapi::Resource + Metadata<Ty: Meta> + DeserializeOwned + Send + Sync {
    /// The resource: plural, lower case.
    const PLURAL: &'static str;
}

impl<T> Kind for T
where
    T: k8s_openapi::Resource + Metadata<Ty: Meta> + DeserializeOwned + Send + Sync,
{
    const PLURAL: &'static str = T::URL_PATH_SEGMENT;
}

/// The stored JSON with its `metadata.resourceVersion`: objects lie in the store without it, since the
/// revision is known only once they are there.
pub fn stamped(kv: &KeyValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(kv.value.len() + STAMP);
    put_stamped(&mut out, &kv.value.bytes(), kv.mod_revision);
    out
}

/// How much longer an object is with its resourceVersion, at most: the key, quotes, a comma and 20 digits make 41.
pub const STAMP: usize = 44;

/// Writes stored JSON, or the end of it that begins before its metadata, with a resourceVersion.
pub fn put_stamped(out: &mut Vec<u8>, stored: &[u8], revision: Revision) {
    const METADATA: &[u8] = br#""metadata":{"#;
    // The first one is the object's own: `encode` writes nothing but kind and apiVersion before it.
    let Some(at) = stored.windows(METADATA.len()).position(|w| w == METADATA).map(|at| at + METADATA.len())
    else {
        return out.extend_from_slice(stored);
    };
    let (before, after) = stored.split_at(at);
    out.extend_from_slice(before);
    let comma = if after.first() == Some(&b'}') { "" } else { "," };
    // Writing into a vector never fails.
    let _ = write!(out, r#""resourceVersion":"{revision}"{comma}"#);
    out.extend_from_slice(after);
}

/// The typed object in a key's value, with its resourceVersion.
///
/// # Errors
/// If the value isn't such an object.
pub fn decode<T: Kind>(kv: &KeyValue) -> Result<T, serde_json::Error> {
    let mut object: T = serde_json::from_slice(&kv.value.bytes())?;
    object.metadata_mut().stored_by(kv.mod_revision);
    Ok(object)
}

/// Reads one kind from successive snapshots and decodes only what changed between them.
#[derive(Debug)]
pub struct Reader<T> {
    decoded: HashMap<Bytes, (Revision, Arc<T>)>,
}

impl<T> Default for Reader<T> {
    fn default() -> Self {
        Reader { decoded: HashMap::new() }
    }
}

impl<T: Kind> Reader<T> {
    /// All objects of the kind, in the order of their keys. An object that can't be decoded is left out.
    pub fn list(&mut self, state: &State) -> Vec<Arc<T>> {
        let mut kept = HashMap::with_capacity(self.decoded.len());
        let mut list = Vec::with_capacity(self.decoded.len());
        for kv in state.range(&KeyRange::prefix(kind_prefix(T::GROUP, T::PLURAL))) {
            let known = self.decoded.remove(&kv.key).filter(|(revision, _)| *revision == kv.mod_revision);
            let Some(object) = known.map(|(_, object)| object).or_else(|| decode(kv).ok().map(Arc::new))
            else {
                continue;
            };
            list.push(object.clone());
            kept.insert(kv.key.clone(), (kv.mod_revision, object));
        }
        self.decoded = kept;
        list
    }

    /// The objects of one namespace, decoded anew.
    pub fn list_in(state: &State, namespace: &str) -> Vec<T> {
        let prefix = namespace_prefix(T::GROUP, T::PLURAL, namespace);
        state.range(&KeyRange::prefix(prefix)).filter_map(|kv| decode(kv).ok()).collect()
    }

    /// One object, decoded anew; `namespace` is empty for cluster-scoped ones.
    pub fn get(state: &State, namespace: &str, name: &str) -> Option<T> {
        decode(state.get(key(T::GROUP, T::PLURAL, namespace, name).as_bytes())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use store::{Memory, Store, Txn};

    use super::*;

    #[tokio::test]
    async fn what_is_read_carries_the_revision_that_wrote_it() {
        let store = Memory::default();
        let value = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"d"}}"#;
        let revision = store.txn(Txn::put(key("", "configmaps", "d", "a"), value)).await.unwrap().revision;

        let mut reader = Reader::<ConfigMap>::default();
        let list = reader.list(&store.snapshot());
        assert_eq!(list[0].metadata.resource_version, Some(revision.to_string()));
        assert!(Arc::ptr_eq(&list[0], &reader.list(&store.snapshot())[0]), "unchanged: not decoded again");

        let state = store.snapshot();
        let kv = state.get(key("", "configmaps", "d", "a").as_bytes()).unwrap();
        let text = String::from_utf8(stamped(kv)).unwrap();
        assert!(
            text.contains(&format!(r#""metadata":{{"resourceVersion":"{revision}","name":"a""#)),
            "{text}"
        );
    }
}
