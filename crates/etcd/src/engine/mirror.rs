//! The state as etcd's watch tells it: what it makes of each answer, without I/O.

use std::collections::{BTreeMap, HashMap};

use store::{KeyValue, LeaseId, Revision, State, Told};

use super::keys::{Keys, Purpose};
use super::translate::own;
use crate::numbers::from_etcd;
use crate::proto::{self, EventType};

/// A host that wants to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The lease that its key hangs on.
    pub lease: LeaseId,
    /// Its name.
    pub name: String,
    /// The revision at which it became one: the candidate with the smallest leads, and this is its term.
    pub since: Revision,
}

/// What etcd holds of a cluster.
#[derive(Debug, Clone)]
pub struct Mirror {
    keys: Keys,
    pub state: State,
    candidates: BTreeMap<Revision, Candidate>,
    /// Whether the key is gone that says whose keys these are.
    pub is_orphan: bool,
}

impl Mirror {
    /// What was read at `revision`.
    pub fn loaded(keys: Keys, revision: Revision, kvs: Vec<proto::KeyValue>) -> Self {
        let mut entries: Vec<KeyValue> = Vec::new();
        let mut leases = HashMap::new();
        let mut candidates = BTreeMap::new();
        for kv in &kvs {
            match keys.purpose(&kv.key) {
                Purpose::State(_) => entries.extend(own(&keys, kv)),
                Purpose::Lease(lease) => {
                    leases.insert(lease, number(&kv.value));
                }
                Purpose::Candidate(lease) => {
                    let candidate = candidate(lease, kv);
                    candidates.insert(candidate.since, candidate);
                }
                Purpose::Cluster | Purpose::Compacted | Purpose::Other => {}
            }
        }
        Mirror { state: State::loaded(revision, entries, leases), keys, candidates, is_orphan: false }
    }

    /// Takes the events of one answer in: whole revisions, oldest first.
    pub fn take(&mut self, events: &[proto::Event]) {
        let of =
            |event: &proto::Event| event.kv.as_ref().map_or(Revision::ZERO, |kv| from_etcd(kv.mod_revision));
        for events in events.chunk_by(|a, b| of(a) == of(b)) {
            let revision = of(&events[0]);
            if revision > self.state.revision() {
                let told: Vec<Told> = events.iter().filter_map(|event| self.told(event)).collect();
                self.state.follow(revision, told);
            }
        }
    }

    /// etcd says that up to `revision` nothing else happened here.
    pub fn advance(&mut self, revision: Revision) {
        self.state.follow(revision, []);
    }

    /// Who leads.
    pub fn head(&self) -> Option<&Candidate> {
        self.candidates.values().next()
    }

    fn told(&mut self, event: &proto::Event) -> Option<Told> {
        let kv = event.kv.as_ref()?;
        let is_put = event.r#type() == EventType::Put;
        match self.keys.purpose(&kv.key) {
            Purpose::State(_) if is_put => own(&self.keys, kv).map(Told::Put),
            Purpose::State(key) => Some(Told::Deleted(key)),
            Purpose::Lease(lease) if is_put => Some(Told::Granted(lease, number(&kv.value))),
            Purpose::Lease(lease) => Some(Told::Ended(lease)),
            Purpose::Candidate(lease) => {
                self.candidates.retain(|_, candidate| candidate.lease != lease);
                if is_put {
                    let candidate = candidate(lease, kv);
                    self.candidates.insert(candidate.since, candidate);
                }
                None
            }
            Purpose::Compacted => is_put.then(|| Told::Compacted(Revision(number(&kv.value)))),
            Purpose::Cluster => {
                self.is_orphan = !is_put;
                None
            }
            Purpose::Other => None,
        }
    }
}

fn candidate(lease: LeaseId, kv: &proto::KeyValue) -> Candidate {
    let name = String::from_utf8_lossy(&kv.value).into_owned();
    Candidate { lease, name, since: from_etcd(kv.create_revision) }
}

/// A number as text; 0 for what is none.
pub fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: impl AsRef<[u8]>, value: &str, created: i64, modified: i64, is_put: bool) -> proto::Event {
        let kv = proto::KeyValue {
            key: key.as_ref().to_vec().into(),
            value: value.to_owned().into(),
            create_revision: created,
            mod_revision: modified,
            version: 1,
            lease: 0,
        };
        let r#type = if is_put { EventType::Put } else { EventType::Delete } as i32;
        proto::Event { r#type, kv: Some(kv), prev_kv: None }
    }

    #[test]
    fn answers_that_overlap_are_taken_once_and_in_whole_revisions() {
        let keys = Keys::new("/h");
        let mut mirror = Mirror::loaded(keys.clone(), Revision(10), Vec::new());
        let put = |key: &[u8], revision| event(keys.state(key), "v", revision, revision, true);
        mirror.take(&[put(b"a", 11), put(b"b", 11), put(b"c", 12)]);
        mirror.take(&[put(b"a", 11), put(b"b", 11), put(b"d", 14)]);
        assert_eq!((mirror.state.revision(), mirror.state.len()), (Revision(14), 4));
        assert_eq!(mirror.state.events(Revision(11)).count(), 4);
        mirror.advance(Revision(13));
        assert_eq!(mirror.state.revision(), Revision(14), "time never goes back");
        mirror.advance(Revision(20));
        mirror.take(&[event(keys.state(b"a"), "", 0, 21, false)]);
        assert_eq!((mirror.state.revision(), mirror.state.len()), (Revision(21), 3));
        mirror.take(&[event(keys.compacted(), "12", 22, 22, true)]);
        assert_eq!(mirror.state.compacted(), Revision(12));
        assert!(!mirror.is_orphan);
        mirror.take(&[event(keys.cluster(), "", 0, 23, false)]);
        assert!(mirror.is_orphan);
    }

    #[test]
    fn the_oldest_candidate_leads_until_its_key_is_gone() {
        let keys = Keys::new("/h");
        let first = event(keys.candidate(LeaseId(7)), "n1", 5, 5, true).kv.unwrap();
        let mut mirror = Mirror::loaded(keys.clone(), Revision(5), vec![first]);
        mirror.take(&[event(keys.candidate(LeaseId(3)), "n2", 6, 6, true)]);
        assert_eq!(mirror.head().unwrap().name, "n1");
        mirror.take(&[
            event(keys.candidate(LeaseId(7)), "", 0, 8, false),
            event(keys.candidate(LeaseId(9)), "n1", 9, 9, true),
        ]);
        let second = Candidate { lease: LeaseId(3), name: "n2".into(), since: Revision(6) };
        assert_eq!(mirror.head().unwrap(), &second);
    }
}
