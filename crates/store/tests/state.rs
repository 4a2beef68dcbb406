//! The map against a model that is too simple to be wrong: a list of all its versions.

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::{Compare, Condition, Error, Event, KeyRange, LeaseId, Op, OpResult, Revision, State, Txn};

#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Grant(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

/// Key to value, create revision, mod revision, version, lease.
type Version = BTreeMap<Vec<u8>, (Vec<u8>, Revision, Revision, u64, LeaseId)>;

#[derive(Debug)]
struct Model {
    /// By revision; the first one is of revision 1.
    versions: Vec<Version>,
    leases: Vec<LeaseId>,
}

impl Model {
    fn newest(&self) -> &Version {
        &self.versions[self.versions.len() - 1]
    }

    fn revision(&self) -> Revision {
        Revision(self.versions.len() as u64)
    }

    /// Whether it happened.
    fn txn(&mut self, txn: &Txn) -> bool {
        let newest = self.newest();
        let holds = txn.conditions.iter().all(|condition| match condition {
            Condition::ModRevision(key, how, with) => {
                compare(*how, newest.get(&key[..]).map_or(Revision::ZERO, |kv| kv.2), *with)
            }
            Condition::Version(key, how, with) => {
                compare(*how, newest.get(&key[..]).map_or(0, |kv| kv.3), *with)
            }
            Condition::Value(key, how, with) => {
                newest.get(&key[..]).is_some_and(|kv| compare(*how, &kv.0[..], &with[..]))
            }
            _ => unreachable!("not generated"),
        });
        let steps = if holds { &txn.success } else { &txn.failure };
        if changes_twice(&txn.success) || changes_twice(&txn.failure) {
            return false;
        }
        let leased =
            |op: &Op| matches!(op, Op::Put { lease, .. } if lease.is_some() && !self.leases.contains(lease));
        if steps.iter().any(leased) {
            return false;
        }
        let (mut next, revision, mut changed) = (newest.clone(), self.revision().next(), false);
        for op in steps {
            match op {
                Op::Put { key, value, lease } => {
                    let (created, version) = next.get(&key[..]).map_or((revision, 1), |kv| (kv.1, kv.3 + 1));
                    next.insert(key.to_vec(), (value.to_vec(), created, revision, version, *lease));
                    changed = true;
                }
                Op::Delete(range) => {
                    let before = next.len();
                    next.retain(|key, _| !range.contains(key));
                    changed |= next.len() != before;
                }
                Op::Range(_) => {}
            }
        }
        if changed {
            self.versions.push(next);
        }
        true
    }

    fn revoke(&mut self, lease: LeaseId) -> bool {
        let known = self.leases.contains(&lease);
        self.leases.retain(|other| *other != lease);
        let mut next = self.newest().clone();
        next.retain(|_, kv| kv.4 != lease);
        if known && next.len() != self.newest().len() {
            self.versions.push(next);
        }
        known
    }
}

/// Whether a key is put twice, or put and deleted.
fn changes_twice(ops: &[Op]) -> bool {
    ops.iter().enumerate().any(|(n, op)| {
        let Op::Put { key, .. } = op else { return false };
        ops.iter().enumerate().any(|(m, other)| match other {
            Op::Put { key: other, .. } => m != n && other == key,
            Op::Delete(range) => range.contains(key),
            Op::Range(_) => false,
        })
    })
}

fn compare<T: Ord>(how: Compare, left: T, right: T) -> bool {
    match how {
        Compare::Equal => left == right,
        Compare::NotEqual => left != right,
        Compare::Greater => left > right,
        Compare::Less => left < right,
    }
}

fn keys() -> impl Strategy<Value = String> {
    "[abc]{1,2}"
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        keys().prop_map(KeyRange::key),
        keys().prop_map(KeyRange::prefix),
        (keys(), keys()).prop_map(|(a, b)| KeyRange { start: a.into(), end: Some(b.into()) }),
        keys().prop_map(|a| KeyRange { start: a.into(), end: None }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let lease = prop_oneof![4 => Just(LeaseId::NONE), 1 => (1..4i64).prop_map(LeaseId)];
    let op = prop_oneof![
        3 => (keys(), "[xyz]", lease)
            .prop_map(|(key, value, lease)| Op::Put { key: key.into(), value: value.into(), lease }),
        1 => ranges().prop_map(Op::Delete),
        1 => ranges().prop_map(Op::Range),
    ];
    proptest::collection::vec(op, 0..4)
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let how = prop_oneof![
        Just(Compare::Equal),
        Just(Compare::NotEqual),
        Just(Compare::Greater),
        Just(Compare::Less)
    ];
    let condition = (keys(), how, 0..6u64, "[xyz]", 0..3).prop_map(|(key, how, n, value, kind)| match kind {
        0 => Condition::ModRevision(key.into(), how, Revision(n)),
        1 => Condition::Version(key.into(), how, n),
        _ => Condition::Value(key.into(), how, value.into()),
    });
    proptest::collection::vec(condition, 0..2)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (conditions(), ops(), ops())
            .prop_map(|(conditions, success, failure)| Step::Txn(Txn { conditions, success, failure })),
        1 => (1..4i64).prop_map(|lease| Step::Grant(LeaseId(lease))),
        1 => (1..4i64).prop_map(|lease| Step::Revoke(LeaseId(lease))),
        1 => (0..30u64).prop_map(|revision| Step::Compact(Revision(revision))),
    ];
    proptest::collection::vec(step, 0..40)
}

fn held(state: &State, range: &KeyRange) -> Version {
    let entries = state.range(range).map(|kv| {
        let rest = (kv.value.bytes().to_vec(), kv.create_revision, kv.mod_revision, kv.version, kv.lease);
        (kv.key.to_vec(), rest)
    });
    entries.collect()
}

proptest! {
    #[test]
    fn the_state_is_what_the_model_says(steps in steps(), range in ranges()) {
        let mut state = State::default();
        let mut model = Model { versions: vec![Version::new()], leases: Vec::new() };
        let mut compacted = Revision::ZERO;
        for step in &steps {
            let before = state.clone();
            match step {
                Step::Txn(txn) => {
                    let result = state.apply(txn);
                    prop_assert_eq!(result.is_ok(), model.txn(txn));
                    match result {
                        Ok(response) => {
                            prop_assert_eq!(response.revision, model.revision());
                            let taken = if response.succeeded { &txn.success } else { &txn.failure };
                            prop_assert_eq!(response.results.len(), taken.len());
                            if let (Some(Op::Range(range)), Some(OpResult::Range(found))) =
                                (taken.first(), response.results.first())
                            {
                                prop_assert!(before.range(range).eq(found));
                            }
                        }
                        Err(error) => prop_assert!(matches!(error, Error::LeaseNotFound(_) | Error::Invalid(_))),
                    }
                }
                Step::Grant(lease) => {
                    state.grant(*lease, 10);
                    model.leases.push(*lease);
                }
                Step::Revoke(lease) => prop_assert_eq!(state.revoke(*lease).is_ok(), model.revoke(*lease)),
                Step::Compact(revision) => {
                    state.compact(*revision);
                    compacted = compacted.max((*revision).min(model.revision()));
                }
            }
            prop_assert_eq!(state.revision(), model.revision());
            prop_assert_eq!(state.compacted(), compacted);
        }
        let all = KeyRange::prefix("");
        prop_assert_eq!(&held(&state, &all), model.newest());
        let mut in_range = model.newest().clone();
        in_range.retain(|key, _| range.contains(key));
        prop_assert_eq!(held(&state, &range), in_range);

        // Every revision that is not compacted can be gone back to, and its events lead to the next one.
        for (version, revision) in model.versions.iter().zip((1..).map(Revision)) {
            let old = state.at(revision);
            prop_assert_eq!(old.is_err(), revision < compacted);
            let Ok(old) = old else { continue };
            prop_assert_eq!(&held(&old, &all), version);
        }
        prop_assert!(state.at(model.revision().next()).is_err());
        if compacted < model.revision() {
            let mut replayed = model.versions[compacted.previous().0 as usize].clone();
            for event in state.events(compacted.next()) {
                match event {
                    Event::Put { current: kv, previous } => {
                        let rest = (kv.value.bytes().to_vec(), kv.create_revision, kv.mod_revision, kv.version, kv.lease);
                        let old = replayed.insert(kv.key.to_vec(), rest);
                        prop_assert_eq!(old.map(|kv| kv.2), previous.as_ref().map(|kv| kv.mod_revision));
                    }
                    Event::Delete { previous, .. } => {
                        let old = replayed.remove(&previous.key[..]);
                        prop_assert_eq!(old.map(|kv| kv.2), Some(previous.mod_revision));
                    }
                }
            }
            prop_assert_eq!(&replayed, model.newest());
        }
    }
}
