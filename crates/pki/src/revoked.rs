//! Keys of machines that were taken back, for handshakes.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::KeyHash;

/// Keys that open no door between hosts any more. Clones share them: what is taken back counts for all that was made with one.
#[derive(Debug, Clone, Default)]
pub struct RevokedKeys(Arc<RwLock<BTreeSet<KeyHash>>>);

impl RevokedKeys {
    /// Puts others in their place.
    pub fn replace(&self, keys: BTreeSet<KeyHash>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether a key is one of them.
    pub fn has(&self, key: KeyHash) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }
}
