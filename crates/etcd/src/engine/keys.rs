//! Where the cluster's keys lie in an etcd that others may use too. The only place that knows the prefix.
//!
//! | key | value |
//! |---|---|
//! | `PREFIX/cluster` | the cluster's id |
//! | `PREFIX/compacted` | the revision up to which history is forgotten |
//! | `PREFIX/sync` | written by who wants to see how far etcd is |
//! | `PREFIX/candidates/LEASE` | the name of a host that wants to lead; hangs on its lease |
//! | `PREFIX/leases/LEASE` | a lease's time to live; hangs on it |
//! | `PREFIX/stateKEY` | what the store holds under KEY |

use bytes::Bytes;
use store::{KeyRange, LeaseId};

/// The keys of a cluster.
#[derive(Debug, Clone)]
pub struct Keys {
    root: String,
}

/// What a key of the cluster is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    Cluster,
    Compacted,
    Candidate(LeaseId),
    Lease(LeaseId),
    /// A key of the store's own, by the name that the store knows it by.
    State(Bytes),
    Other,
}

impl Keys {
    /// Beneath a prefix like `/holdfast`.
    pub fn new(prefix: &str) -> Self {
        Keys { root: format!("{}/", prefix.trim_end_matches('/')) }
    }

    pub fn cluster(&self) -> Bytes {
        self.named("cluster")
    }

    pub fn compacted(&self) -> Bytes {
        self.named("compacted")
    }

    pub fn sync(&self) -> Bytes {
        self.named("sync")
    }

    pub fn candidate(&self, lease: LeaseId) -> Bytes {
        self.named(&format!("candidates/{:016x}", lease.0))
    }

    pub fn lease(&self, lease: LeaseId) -> Bytes {
        self.named(&format!("leases/{:016x}", lease.0))
    }

    /// A key of the store.
    pub fn state(&self, key: &[u8]) -> Bytes {
        let mut name = format!("{}state", self.root).into_bytes();
        name.extend_from_slice(key);
        name.into()
    }

    /// Everything of the cluster.
    pub fn all(&self) -> (Bytes, Bytes) {
        bounds(KeyRange::prefix(self.root.clone()))
    }

    /// A range of the store's keys; none if nothing lies in it.
    pub fn range(&self, range: &KeyRange) -> Option<(Bytes, Bytes)> {
        let start = self.state(&range.start);
        match &range.end {
            Some(end) if *end <= range.start => None,
            Some(end) => Some((start, self.state(end))),
            None => Some((start, bounds(KeyRange::prefix(self.state(b""))).1)),
        }
    }

    /// What an etcd's key is for.
    pub fn purpose(&self, key: &[u8]) -> Purpose {
        let Some(name) = key.strip_prefix(self.root.as_bytes()) else { return Purpose::Other };
        if let Some(key) = name.strip_prefix(b"state") {
            // Copied, as all that is kept: a slice would keep the whole answer that it came in.
            return Purpose::State(Bytes::copy_from_slice(key));
        }
        let lease = |name: &[u8]| {
            let number = std::str::from_utf8(name).ok().and_then(|name| i64::from_str_radix(name, 16).ok());
            number.map(LeaseId)
        };
        match name {
            b"cluster" => Purpose::Cluster,
            b"compacted" => Purpose::Compacted,
            _ => {
                let candidate = name.strip_prefix(b"candidates/").and_then(lease).map(Purpose::Candidate);
                let held = || name.strip_prefix(b"leases/").and_then(lease).map(Purpose::Lease);
                candidate.or_else(held).unwrap_or(Purpose::Other)
            }
        }
    }

    fn named(&self, name: &str) -> Bytes {
        format!("{}{name}", self.root).into()
    }
}

fn bounds(range: KeyRange) -> (Bytes, Bytes) {
    // etcd's word for "to the end of all keys" is a single zero.
    (range.start, range.end.unwrap_or_else(|| Bytes::from_static(b"\0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_finds_its_place_again() {
        let keys = Keys::new("/holdfast/");
        for key in [&b"/registry/core/pods/default/a"[..], b"x", b"", b"\xff\0"] {
            assert_eq!(keys.purpose(&keys.state(key)), Purpose::State(Bytes::copy_from_slice(key)));
        }
        assert_eq!(keys.purpose(&keys.candidate(LeaseId(255))), Purpose::Candidate(LeaseId(255)));
        assert_eq!(keys.purpose(&keys.lease(LeaseId(i64::MAX))), Purpose::Lease(LeaseId(i64::MAX)));
        assert_eq!(keys.purpose(&keys.cluster()), Purpose::Cluster);
        assert_eq!(keys.purpose(&keys.compacted()), Purpose::Compacted);
        for other in [&keys.sync()[..], b"/holdfastx/statea", b"/holdfast/leases/zz", b"/other"] {
            assert_eq!(keys.purpose(other), Purpose::Other);
        }
    }

    #[test]
    fn ranges_stay_within_the_state() {
        let keys = Keys::new("/h");
        let all = keys.range(&KeyRange::prefix("")).unwrap();
        assert_eq!(all, ("/h/state".into(), "/h/statf".into()));
        let one = keys.range(&KeyRange::key("a")).unwrap();
        assert_eq!(one, ("/h/statea".into(), "/h/statea\0".into()));
        let none = KeyRange { start: "b".into(), end: Some("a".into()) };
        assert_eq!(keys.range(&none), None);
        assert_eq!(keys.all(), ("/h/".into(), "/h0".into()));
    }
}
