//! Random steps on an engine and on the bare map: the same answers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use store::{
    Compare, Condition, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Revision, State, Store, Txn,
};

/// A transaction in which revisions and leases are numbers of earlier ones.
#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Grant,
    Revoke(usize),
}

/// The engine's numbers, and the model's for the same.
#[derive(Default)]
struct Numbers {
    revisions: BTreeMap<Revision, Revision>,
    leases: Vec<(LeaseId, LeaseId)>,
}

impl Numbers {
    /// Of the nth lease; a number that is none where it wasn't made yet.
    fn lease(&self, LeaseId(nth): LeaseId) -> (LeaseId, LeaseId) {
        let none = LeaseId(if nth == 0 { 0 } else { i64::MAX - nth });
        usize::try_from(nth - 1).ok().and_then(|nth| self.leases.get(nth).copied()).unwrap_or((none, none))
    }

    /// The transaction with the engine's numbers, and with the model's.
    fn resolve(&self, txn: &Txn) -> (Txn, Txn) {
        let revision = |Revision(nth)| {
            let of = |nth: usize| self.revisions.iter().nth_back(nth).map(|(a, b)| (*a, *b));
            nth.checked_sub(1).and_then(|nth| of(nth as usize)).unwrap_or_default()
        };
        let pick = |pair: (Revision, Revision), model: bool| if model { pair.1 } else { pair.0 };
        let side = |model: bool| {
            let condition = |condition: &Condition| match condition.clone() {
                Condition::ModRevision(key, how, nth) => {
                    Condition::ModRevision(key, how, pick(revision(nth), model))
                }
                Condition::CreateRevision(key, how, nth) => {
                    Condition::CreateRevision(key, how, pick(revision(nth), model))
                }
                Condition::Lease(key, _, nth) => {
                    let (engine, modeled) = self.lease(nth);
                    // Which of two leases has the larger number is the engine's own affair.
                    Condition::Lease(key, Compare::Equal, if model { modeled } else { engine })
                }
                other => other,
            };
            let op = |op: &Op| match op.clone() {
                Op::Put { key, value, lease } => {
                    let (engine, modeled) = self.lease(lease);
                    Op::Put { key, value, lease: if model { modeled } else { engine } }
                }
                other => other,
            };
            Txn {
                conditions: txn.conditions.iter().map(condition).collect(),
                success: txn.success.iter().map(op).collect(),
                failure: txn.failure.iter().map(op).collect(),
            }
        };
        (side(false), side(true))
    }

    /// What the engine holds, with the model's numbers.
    fn modeled(&self, kv: &KeyValue) -> KeyValue {
        let lease = self.leases.iter().find(|(engine, _)| *engine == kv.lease);
        KeyValue {
            create_revision: self.revisions[&kv.create_revision],
            mod_revision: self.revisions[&kv.mod_revision],
            lease: lease.map_or(LeaseId::NONE, |(_, model)| *model),
            ..kv.clone()
        }
    }
}

fn keys() -> impl Strategy<Value = String> {
    "m/[abc]{1,2}"
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        keys().prop_map(KeyRange::key),
        keys().prop_map(KeyRange::prefix),
        (keys(), keys()).prop_map(|(a, b)| KeyRange { start: a.into(), end: Some(b.into()) }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let lease = prop_oneof![4 => Just(LeaseId::NONE), 1 => (1..5i64).prop_map(LeaseId)];
    let op = prop_oneof![
        4 => (keys(), "[xyz]", lease)
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
    let condition = (keys(), how, 0..4u64, "[xyz]", 0..5).prop_map(|(key, how, n, value, kind)| match kind {
        0 => Condition::ModRevision(key.into(), how, Revision(n)),
        1 => Condition::CreateRevision(key.into(), how, Revision(n)),
        2 => Condition::Version(key.into(), how, n),
        3 => Condition::Lease(key.into(), how, LeaseId(n as i64)),
        _ => Condition::Value(key.into(), how, value.into()),
    });
    proptest::collection::vec(condition, 0..2)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (conditions(), ops(), ops())
            .prop_map(|(conditions, success, failure)| Step::Txn(Txn { conditions, success, failure })),
        1 => Just(Step::Grant),
        1 => (0..4usize).prop_map(Step::Revoke),
    ];
    proptest::collection::vec(step, 150)
}

/// The engine's answers, its state, its history and its watches are the model's but for the numbers.
pub async fn an_engine_does_what_the_model_says(store: &dyn Store) {
    let range = KeyRange::prefix("m/");
    let mut watcher = store.watch(range.clone(), Revision::ZERO).unwrap();
    let begin = store.snapshot().revision();
    let mut model = State::default();
    let mut numbers = Numbers::default();
    let steps = steps().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    for step in steps {
        let before = model.revision();
        match step {
            Step::Txn(txn) => {
                let (asked, of_model) = numbers.resolve(&txn);
                let (answer, expected) = (store.txn(asked).await, model.apply(&of_model));
                assert_eq!(answer.is_ok(), expected.is_ok(), "{txn:?}: {answer:?}, {expected:?}");
                let (Ok(answer), Ok(expected)) = (answer, expected) else { continue };
                if expected.revision > before {
                    numbers.revisions.insert(answer.revision, expected.revision);
                }
                assert_eq!(answer.succeeded, expected.succeeded, "{txn:?}");
                let kvs = |result: &OpResult| match result {
                    OpResult::Put(kv) => kv.iter().cloned().collect(),
                    OpResult::Deleted(kvs) | OpResult::Range(kvs) => kvs.clone(),
                };
                assert_eq!(answer.results.len(), expected.results.len());
                for (answer, expected) in answer.results.iter().zip(&expected.results) {
                    assert_eq!(std::mem::discriminant(answer), std::mem::discriminant(expected));
                    let answer: Vec<KeyValue> = kvs(answer).iter().map(|kv| numbers.modeled(kv)).collect();
                    let expected: Vec<KeyValue> =
                        kvs(expected).iter().map(|kv| KeyValue::clone(kv)).collect();
                    assert_eq!(answer, expected, "{txn:?}");
                }
            }
            Step::Grant => {
                let lease = store.grant(600).await.unwrap();
                let modeled = LeaseId(1000 + numbers.leases.len() as i64);
                model.grant(modeled, 600);
                numbers.leases.push((lease, modeled));
            }
            Step::Revoke(nth) => {
                let Some((lease, modeled)) = numbers.leases.get(nth).copied() else { continue };
                assert_eq!(store.revoke(lease).await.is_ok(), model.revoke(modeled).is_ok());
                if model.revision() > before {
                    numbers.revisions.insert(store.snapshot().revision(), model.revision());
                }
            }
        }
    }
    let state = store.read().await.unwrap();
    let held: Vec<KeyValue> = state.range(&range).map(|kv| numbers.modeled(kv)).collect();
    let expected: Vec<KeyValue> = model.range(&range).map(|kv| KeyValue::clone(kv)).collect();
    assert_eq!(held, expected);
    for (revision, modeled) in &numbers.revisions {
        let old = state.at(*revision).unwrap();
        let old: Vec<KeyValue> = old.range(&range).map(|kv| numbers.modeled(kv)).collect();
        let expected = model.at(*modeled).unwrap();
        let expected: Vec<KeyValue> = expected.range(&range).map(|kv| KeyValue::clone(kv)).collect();
        assert_eq!(old, expected, "at {revision}");
    }
    let modeled = |event: &Event| match event {
        Event::Put { current, previous } => {
            (numbers.modeled(current), previous.as_ref().map(|kv| numbers.modeled(kv)), Revision::ZERO)
        }
        Event::Delete { revision, previous } => {
            (numbers.modeled(previous), None, numbers.revisions[revision])
        }
    };
    let plain = |event: &Event| match event {
        Event::Put { current, previous } => {
            (KeyValue::clone(current), previous.as_ref().map(|kv| KeyValue::clone(kv)), Revision::ZERO)
        }
        Event::Delete { revision, previous } => (KeyValue::clone(previous), None, *revision),
    };
    let expected: Vec<_> = model.events(Revision::ZERO).map(plain).collect();
    let history: Vec<_> =
        state.events(begin.next()).filter(|event| range.contains(event.key())).map(modeled).collect();
    assert_eq!(history, expected);
    let mut told = Vec::new();
    while told.len() < expected.len() {
        told.extend(watcher.changes().await.unwrap().0.iter().map(modeled));
    }
    assert_eq!(told, expected);
    for (lease, _) in numbers.leases {
        // Those that were ended above are gone already.
        let _ = store.revoke(lease).await;
    }
}
