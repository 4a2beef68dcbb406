//! What the map holds: keys with their values and versions, ranges of keys, and changes to them.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Value;

/// A point in the map's history: each transaction that changes something takes the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything: no transaction has this one, and in requests it stands for none given.
    pub const ZERO: Revision = Revision(0);

    /// The one after it. Clients ask from any number on: after the last there is none.
    pub fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }

    /// The one before; none comes before [`Revision::ZERO`].
    pub fn previous(self) -> Revision {
        Revision(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Revision, ParseIntError> {
        text.parse().map(Revision)
    }
}

/// A lease's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// The word for no lease, in etcd's API too.
    pub const NONE: LeaseId = LeaseId(0);

    /// Whether there is a lease.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value and the revisions of its life, as etcd v3 defines them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Bytes,
    /// The value, opaque to the store.
    pub value: Value,
    /// The revision that created the key (this life of it: a deleted key starts anew).
    pub create_revision: Revision,
    /// The revision that last wrote the key.
    pub mod_revision: Revision,
    /// How many times it was written in this life, from 1.
    pub version: u64,
    /// The lease that deletes the key when it runs out, if any.
    pub lease: LeaseId,
}

/// One change to one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The key was written; `previous` is what it was before, if it was.
    Put {
        /// The key as it is now.
        current: Arc<KeyValue>,
        /// The key as it was before.
        previous: Option<Arc<KeyValue>>,
    },
    /// The key was deleted at `revision`.
    Delete {
        /// When it was deleted.
        revision: Revision,
        /// The key as it was before.
        previous: Arc<KeyValue>,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put { current, .. } => &current.key,
            Event::Delete { previous, .. } => &previous.key,
        }
    }

    /// The revision that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { current, .. } => current.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// The keys from `start` up to, not including, `end`; without an end, all from `start` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key that is not meant any more.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// This one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        KeyRange { start, end: Some(end.into()) }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return KeyRange { start, end: Some(end.into()) };
            }
        }
        KeyRange { start, end: None }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}
