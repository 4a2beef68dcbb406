//! What a write takes and frees beside its object, in the same transaction.

use bytes::Bytes;
use store::{Compare, Condition, KeyRange, Op, Revision};

/// What else a write claims and frees, and on which conditions.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) ops: Vec<Op>,
}

impl Claims {
    /// Takes a key that nobody may have.
    pub(crate) fn take(&mut self, key: String, owner: &str) {
        let key = Bytes::from(key);
        // A key that does not exist counts as created at 0. Of two writers that take the same key at once, whichever
        // members they ask, the later one's whole transaction fails.
        self.conditions.push(Condition::CreateRevision(key.clone(), Compare::Equal, Revision::ZERO));
        self.ops.push(Op::put(key, Bytes::copy_from_slice(owner.as_bytes())));
    }

    /// Adds what another part of the change claims and frees.
    pub(crate) fn add(&mut self, other: Claims) {
        self.conditions.extend(other.conditions);
        self.ops.extend(other.ops);
    }

    /// Gives a key back.
    pub(crate) fn free(&mut self, key: String) {
        self.ops.push(Op::Delete(KeyRange::key(key)));
    }
}
