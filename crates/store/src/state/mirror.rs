//! A state that follows another store's: loaded whole at one revision, then told each later one.

use std::sync::Arc;

use imbl::OrdMap;

use super::{History, State};
use crate::{Event, KeyValue, LeaseId, Revision};
use bytes::Bytes;

/// What another store tells of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A key is now so.
    Put(KeyValue),
    /// A key is gone.
    Deleted(Bytes),
    /// A lease was made, with its time to live in seconds.
    Granted(LeaseId, u64),
    /// A lease ended; the end of its keys is reported separately.
    Ended(LeaseId),
    /// The history up to this revision is forgotten.
    Compacted(Revision),
}

impl State {
    /// What another store holds at `revision`. Its history starts there.
    pub fn loaded(
        revision: Revision,
        entries: impl IntoIterator<Item = KeyValue>,
        leases: impl IntoIterator<Item = (LeaseId, u64)>,
    ) -> State {
        let mut packed: OrdMap<Bytes, Arc<KeyValue>> = OrdMap::new();
        let mut before: Option<Arc<KeyValue>> = None;
        for mut kv in entries {
            kv.value = kv.value.packed(None, before.as_ref().map(|before| &before.value));
            let kv = Arc::new(kv);
            packed.insert(kv.key.clone(), kv.clone());
            before = Some(kv);
        }
        State::restored(revision, revision, packed, History::default(), leases.into_iter().collect())
    }

    /// Takes over what another store did at `revision`. What this state knows already is not taken twice.
    pub fn follow(&mut self, revision: Revision, told: impl IntoIterator<Item = Told>) {
        if revision <= self.revision {
            return;
        }
        let mut events = Vec::new();
        let mut compacted = Revision::ZERO;
        for told in told {
            match told {
                Told::Put(mut kv) => {
                    kv.value = self.packed(&kv.key, kv.value);
                    let current = Arc::new(kv);
                    let previous = self.insert(current.clone());
                    events.push(Event::Put { current, previous });
                }
                Told::Deleted(key) => {
                    if let Some(previous) = self.remove(&key) {
                        events.push(Event::Delete { revision, previous });
                    }
                }
                Told::Granted(lease, seconds) => self.grant(lease, seconds),
                Told::Ended(lease) => {
                    self.leases.remove(&lease);
                }
                Told::Compacted(revision) => compacted = revision,
            }
        }
        self.record(revision, events);
        // Also where nothing of ours changed, time went on.
        self.revision = revision;
        self.compact(compacted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{KeyRange, Txn};

    fn kv(key: &str, created: u64, modified: u64, version: u64) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: "v".into(),
            create_revision: Revision(created),
            mod_revision: Revision(modified),
            version,
            lease: LeaseId::NONE,
        }
    }

    #[test]
    fn a_follower_is_what_it_follows() {
        let mut leader = State::default();
        for key in ["a", "b", "a"] {
            leader.apply(&Txn::put(key, "v")).unwrap();
        }
        let mut follower = State::loaded(Revision(2), [kv("a", 2, 2, 1)], HashMap::new());
        follower.follow(Revision(3), [Told::Put(kv("b", 3, 3, 1))]);
        follower.follow(Revision(4), [Told::Put(kv("a", 2, 4, 2))]);
        follower.follow(Revision(4), [Told::Deleted("a".into())]);
        let all = KeyRange::prefix("");
        assert!(leader.range(&all).eq(follower.range(&all)));
        assert!(leader.events(Revision(3)).eq(follower.events(Revision(3))));
        assert!(follower.check_history(Revision(2)).is_err(), "what led to the first state is not known");

        let news = [Told::Deleted("b".into()), Told::Deleted("c".into()), Told::Granted(LeaseId(7), 60)];
        follower.follow(Revision(9), news);
        assert_eq!((follower.revision(), follower.len()), (Revision(9), 1));
        assert_eq!(follower.events(Revision(5)).count(), 1);
        assert!(follower.leases().eq([(LeaseId(7), 60)]));
        assert_eq!(follower.at(Revision(8)).unwrap().len(), 2);
        follower.follow(Revision(12), [Told::Ended(LeaseId(7)), Told::Compacted(Revision(4))]);
        assert_eq!((follower.revision(), follower.compacted()), (Revision(12), Revision(4)));
        assert_eq!(follower.history().len(), 1);
        assert_eq!(follower.leases().count(), 0);
    }
}
