//! One decoded copy of an object, however many tables it is in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use store::{KeyValue, Revision};

use crate::{Kind, decode};

/// The decoded objects of one kind that tables share. It keeps none alive: what no table holds is gone.
#[derive(Debug)]
pub struct Pool<T> {
    known: Arc<Mutex<Known<T>>>,
}

/// Objects by key, each with the revision that wrote it.
type Known<T> = HashMap<Bytes, (Revision, Weak<T>)>;

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Pool { known: self.known.clone() }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { known: Arc::default() }
    }
}

impl<T: Kind> Pool<T> {
    /// The object in a key's value, decoded unless another table has it already; nothing if it can't be decoded.
    pub(crate) fn decode(&self, kv: &KeyValue) -> Option<Arc<T>> {
        let shared = |known: &Known<T>| {
            let (revision, object) = known.get(&kv.key)?;
            object.upgrade().filter(|_| *revision == kv.mod_revision)
        };
        if let Some(object) = shared(&self.known()) {
            return Some(object);
        }
        // Not under the lock: two tables that are filled at the same time would wait for each other.
        let object = Arc::new(decode(kv).ok()?);
        let mut known = self.known();
        if let Some(other) = shared(&known) {
            return Some(other);
        }
        known.insert(kv.key.clone(), (kv.mod_revision, Arc::downgrade(&object)));
        Some(object)
    }

    /// The object at a key is gone.
    pub(crate) fn forget(&self, key: &Bytes) {
        self.known().remove(key);
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
