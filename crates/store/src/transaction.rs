//! Transactions: compare, then put and delete, all or nothing.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, KeyRange, KeyValue, LeaseId, Revision};

/// If every condition holds, `success` happens, else `failure`; either as one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What happens if they do.
    pub success: Vec<Op>,
    /// What happens if one doesn't.
    pub failure: Vec<Op>,
}

impl Txn {
    /// The longest value, in bytes.
    pub const MOST_VALUE: usize = 3 << 19;
    /// The most conditions, and the most steps of either branch.
    pub const MOST_OPS: usize = 128;

    /// Writes one key without a condition.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Txn { success: vec![Op::put(key, value)], ..Txn::default() }
    }

    /// Refuses what no engine carries out, in either branch: a put without a key or of a value that is too long,
    /// too many steps or conditions, and, as in etcd, a key that is put twice, or put and deleted.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check(&self) -> Result<(), Error> {
        let most = self.conditions.len().max(self.success.len()).max(self.failure.len());
        if most > Self::MOST_OPS {
            let limit = Self::MOST_OPS;
            return Err(Error::Invalid(format!("the transaction has {most} steps; {limit} are allowed")));
        }
        for ops in [&self.success, &self.failure] {
            let mut put: Vec<&Bytes> = Vec::new();
            let mut deleted = Vec::new();
            for op in ops {
                match op {
                    Op::Put { key, .. } if key.is_empty() => {
                        return Err(Error::Invalid("the key is empty".into()));
                    }
                    Op::Put { value, .. } if value.len() > Self::MOST_VALUE => {
                        let (size, limit) = (value.len(), Self::MOST_VALUE);
                        let what = format!("the value is {size} bytes long; {limit} are allowed");
                        return Err(Error::Invalid(what));
                    }
                    Op::Put { key, .. } => put.push(key),
                    Op::Delete(range) => deleted.push(range),
                    Op::Range(_) => {}
                }
            }
            put.sort();
            let twice = put.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
            let both = || put.iter().find(|key| deleted.iter().any(|range| range.contains(key))).copied();
            if let Some(key) = twice.or_else(both) {
                let key = String::from_utf8_lossy(key);
                return Err(Error::Invalid(format!("the transaction changes the key {key} twice")));
            }
        }
        Ok(())
    }
}

/// A question about one key. An absent key has revisions and version 0 and no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Its mod revision, [`Revision::ZERO`] where the key must not exist.
    ModRevision(Bytes, Compare, Revision),
    /// Its create revision.
    CreateRevision(Bytes, Compare, Revision),
    /// Its version.
    Version(Bytes, Compare, u64),
    /// Its value; false for a key that does not exist.
    Value(Bytes, Compare, Bytes),
    /// Its lease.
    Lease(Bytes, Compare, LeaseId),
}

/// How the key's side relates to the given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease that it hangs on, if any.
        lease: LeaseId,
    },
    /// Deletes a range of keys.
    Delete(KeyRange),
    /// Reads a range of keys.
    Range(KeyRange),
}

impl Op {
    /// Writes a key that hangs on no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put { key: key.into(), value: value.into(), lease: LeaseId::NONE }
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// The key as it was before the put.
    Put(Option<Arc<KeyValue>>),
    /// The keys as they were before they were deleted.
    Deleted(Vec<Arc<KeyValue>>),
    /// The keys read.
    Range(Vec<Arc<KeyValue>>),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    /// The map's revision after it.
    pub revision: Revision,
    /// Whether all conditions held.
    pub succeeded: bool,
    /// A result for each step taken.
    pub results: Vec<OpResult>,
}
