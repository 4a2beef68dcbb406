//! Which of the host's pods are those of its own manifests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The uids of the static pods that the host has, by the keys of their mirrors. One that ends is among them until all of it is gone.
#[derive(Debug, Default)]
pub(crate) struct StaticBook(Mutex<BTreeMap<Bytes, String>>);

impl StaticBook {
    pub(super) fn put(&self, key: Bytes, uid: String) {
        self.lock().insert(key, uid);
    }

    pub(super) fn remove(&self, key: &Bytes) -> Option<String> {
        self.lock().remove(key)
    }

    /// The uid of the pod whose mirror has that key.
    pub(super) fn get(&self, key: &[u8]) -> Option<String> {
        self.lock().get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<(Bytes, String)> {
        self.lock().iter().map(|(key, uid)| (key.clone(), uid.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bytes, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
