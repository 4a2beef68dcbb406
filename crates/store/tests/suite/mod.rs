//! What every engine does, whatever lies behind it: run for each of them.
//!
//! An engine may take revisions for itself, so what is held against the model are the steps between a key's own.

mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{
    Compare, Condition, Error, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Revision, Store, Txn,
};

/// Generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything, on an engine that holds nothing yet.
pub async fn run(store: Arc<dyn Store>) {
    let store = &*store;
    writes_have_revisions_and_versions(store).await;
    conditions_decide(store).await;
    what_is_refused_changes_nothing(store).await;
    ranges_hold_what_they_say(store).await;
    watches_tell_each_change_once_and_in_order(store).await;
    old_states_can_be_seen_until_they_are_compacted(store).await;
    leases_take_their_keys_along(store).await;
    model::an_engine_does_what_the_model_says(store).await;
    writers_side_by_side_lose_nothing(store).await;
}

pub async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.txn(Txn::put(key.to_owned(), value.to_owned())).await.unwrap().revision
}

fn get(store: &dyn Store, key: &str) -> Option<Arc<KeyValue>> {
    store.snapshot().get(key.as_bytes()).cloned()
}

async fn delete(store: &dyn Store, range: KeyRange) -> Vec<Arc<KeyValue>> {
    let txn = Txn { success: vec![Op::Delete(range)], ..Txn::default() };
    match store.txn(txn).await.unwrap().results.remove(0) {
        OpResult::Deleted(deleted) => deleted,
        other => panic!("{other:?}"),
    }
}

async fn writes_have_revisions_and_versions(store: &dyn Store) {
    let first = put(store, "w/a", "1").await;
    let second = put(store, "w/a", "2").await;
    assert!(second > first);
    let kv = get(store, "w/a").expect("a writer sees its own write");
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version, kv.lease),
        (first, second, 2, LeaseId::NONE)
    );
    assert_eq!(&kv.value.bytes()[..], b"2");
    assert_eq!(store.read().await.unwrap().get(b"w/a"), Some(&kv));

    let txn = Txn::put("w/a", "3");
    let response = store.txn(txn).await.unwrap();
    assert_eq!(response.results, [OpResult::Put(Some(kv))]);
    assert_eq!(delete(store, KeyRange::key("w/a")).await.len(), 1);
    assert_eq!(get(store, "w/a"), None);
    assert_eq!(delete(store, KeyRange::key("w/a")).await, []);
    let again = put(store, "w/a", "").await;
    let kv = get(store, "w/a").unwrap();
    assert_eq!((kv.create_revision, kv.version, &kv.value.bytes()[..]), (again, 1, &b""[..]), "a new life");

    let both = Txn {
        success: vec![
            Op::put("w/b", "b"),
            Op::Range(KeyRange::prefix("w/")),
            Op::Delete(KeyRange::key("w/a")),
        ],
        ..Txn::default()
    };
    let response = store.txn(both).await.unwrap();
    let OpResult::Range(seen) = &response.results[1] else { panic!("{response:?}") };
    assert_eq!(seen.len(), 2, "a step sees those before it");
    let kv = get(store, "w/b").unwrap();
    assert_eq!((kv.mod_revision, get(store, "w/a")), (response.revision, None), "one revision for all steps");
}

async fn conditions_decide(store: &dyn Store) {
    let revision = put(store, "c/a", "5").await;
    let key = || Bytes::from("c/a");
    let absent = || Bytes::from("c/absent");
    use Compare::{Equal, Greater, Less, NotEqual};
    let cases = [
        (Condition::ModRevision(key(), Equal, revision), true),
        (Condition::ModRevision(key(), Less, revision), false),
        (Condition::ModRevision(absent(), Equal, Revision::ZERO), true),
        (Condition::ModRevision(absent(), Greater, Revision(u64::MAX)), false),
        (Condition::ModRevision(key(), Less, Revision(u64::MAX)), true),
        (Condition::CreateRevision(key(), NotEqual, revision), false),
        (Condition::CreateRevision(absent(), Equal, Revision::ZERO), true),
        (Condition::Version(key(), Equal, 1), true),
        (Condition::Version(absent(), Less, 1), true),
        (Condition::Value(key(), Greater, "4".into()), true),
        (Condition::Value(key(), Equal, "".into()), false),
        (Condition::Value(absent(), NotEqual, "x".into()), false),
        (Condition::Value(absent(), Equal, "".into()), false),
        (Condition::Lease(key(), Equal, LeaseId::NONE), true),
        (Condition::Lease(absent(), Greater, LeaseId::NONE), false),
    ];
    for (condition, holds) in cases {
        let put = |value: &str| vec![Op::put("c/b", value.to_owned())];
        let txn = Txn { conditions: vec![condition.clone()], success: put("yes"), failure: put("no") };
        assert_eq!(store.txn(txn).await.unwrap().succeeded, holds, "{condition:?}");
        let expected: &[u8] = if holds { b"yes" } else { b"no" };
        assert_eq!(&get(store, "c/b").unwrap().value.bytes()[..], expected, "{condition:?}");
    }
    let before = store.snapshot().get(b"c/b").cloned();
    let nothing = Txn { conditions: vec![Condition::Version(key(), Equal, 9)], ..Txn::default() };
    let response = store.txn(nothing).await.unwrap();
    assert!(!response.succeeded && response.results.is_empty());
    assert_eq!(store.snapshot().get(b"c/b").cloned(), before);
}

async fn what_is_refused_changes_nothing(store: &dyn Store) {
    let put = |key: &str| Op::put(key.to_owned(), "v");
    let delete = |range| Op::Delete(range);
    let cases = [
        vec![put("r/a"), put("")],
        vec![put("r/a"), put("r/a")],
        vec![put("r/a"), delete(KeyRange::prefix("r/"))],
        vec![delete(KeyRange::key("r/b")), put("r/b")],
        vec![put("r/a"), Op::put("r/b", vec![0; Txn::MOST_VALUE + 1])],
        (0..=Txn::MOST_OPS).map(|n| put(&format!("r/{n}"))).collect(),
    ];
    for success in cases {
        let txn = Txn { success: success.clone(), ..Txn::default() };
        let refused = store.txn(txn).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let branch = Txn { failure: success.clone(), ..Txn::default() };
        assert!(matches!(store.txn(branch).await, Err(Error::Invalid(_))), "in either branch");
    }
    let hung = Op::Put { key: "r/b".into(), value: "v".into(), lease: LeaseId(12345) };
    let leased = Txn { success: vec![put("r/a"), hung], ..Txn::default() };
    assert!(matches!(store.txn(leased).await, Err(Error::LeaseNotFound(LeaseId(12345)))));
    assert_eq!(store.read().await.unwrap().range(&KeyRange::prefix("r/")).count(), 0);
}

async fn ranges_hold_what_they_say(store: &dyn Store) {
    for key in ["n/a", "n/b", "n/c", "n/\u{10ffff}", "\u{10ffff}"] {
        put(store, key, "v").await;
    }
    let range = |start: &str, end: Option<&str>| KeyRange {
        start: start.to_owned().into(),
        end: end.map(|end| end.to_owned().into()),
    };
    let cases = [
        (KeyRange::key("n/b"), 1),
        (KeyRange::key("n/"), 0),
        (KeyRange::prefix("n/"), 4),
        (range("n/a", Some("n/c")), 2),
        (range("n/c", Some("n/a")), 0),
        (range("n/a", Some("n/a")), 0),
        (range("n/a", Some("")), 0),
        (range("n/b", None), store.snapshot().range(&range("n/b", None)).count()),
        (range("", Some("n/b")), store.snapshot().range(&range("", Some("n/b"))).count()),
    ];
    for (range, count) in cases {
        let txn = Txn { success: vec![Op::Range(range.clone())], ..Txn::default() };
        let response = store.txn(txn).await.unwrap();
        let here: Vec<_> = store.snapshot().range(&range).cloned().collect();
        assert_eq!((here.len(), &response.results[0]), (count, &OpResult::Range(here.clone())), "{range:?}");
        if range.start.starts_with(b"n/") && range.end.is_some() {
            assert_eq!(delete(store, range.clone()).await, here, "{range:?}");
            for kv in here {
                store.txn(Txn::put(kv.key.clone(), kv.value.bytes())).await.unwrap();
            }
        }
    }
}

async fn watches_tell_each_change_once_and_in_order(store: &dyn Store) {
    let range = KeyRange::prefix("e/");
    let mut from_now = store.watch(range.clone(), Revision::ZERO).unwrap();
    let first = put(store, "e/a", "0").await;
    for n in 1..20 {
        put(store, if n % 3 == 0 { "e/b" } else { "e/a" }, &n.to_string()).await;
        put(store, "elsewhere", "x").await;
    }
    delete(store, range.clone()).await;
    let mut from_first = store.watch(range, first).unwrap();
    for watcher in [&mut from_now, &mut from_first] {
        let mut seen = Vec::new();
        while seen.len() < 22 {
            let (events, state) =
                tokio::time::timeout(PATIENCE, watcher.changes()).await.expect("events come").unwrap();
            assert!(events.iter().all(|event| event.revision() <= state.revision()));
            seen.extend(events);
        }
        let values = seen.iter().filter_map(|event| match event {
            Event::Put { current, .. } => Some(String::from_utf8(current.value.bytes().to_vec()).unwrap()),
            Event::Delete { .. } => None,
        });
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(values.collect::<Vec<_>>(), expected);
        assert!(seen.windows(2).all(|pair| pair[0].revision() <= pair[1].revision()));
        let gone = &seen[20..];
        assert!(gone.iter().all(|event| matches!(event, Event::Delete { .. })), "{gone:?}");
        assert_eq!(gone[0].revision(), gone[1].revision());
    }
}

async fn old_states_can_be_seen_until_they_are_compacted(store: &dyn Store) {
    let first = put(store, "o/a", "1").await;
    let second = put(store, "o/a", "2").await;
    let state = store.read().await.unwrap();
    assert_eq!(&state.at(first).unwrap().get(b"o/a").unwrap().value.bytes()[..], b"1");
    assert!(matches!(state.at(state.revision().next()), Err(Error::Future { .. })));
    let mut behind = store.watch(KeyRange::prefix("o/"), first).unwrap();

    store.compact(first).await.unwrap();
    let state = store.snapshot();
    assert_eq!(state.compacted(), first);
    assert!(matches!(state.at(first.previous()), Err(Error::Compacted { .. })));
    assert_eq!(&state.at(first).unwrap().get(b"o/a").unwrap().value.bytes()[..], b"1");
    assert!(matches!(store.watch(KeyRange::prefix("o/"), first), Err(Error::Compacted { .. })));
    assert!(matches!(behind.changes().await, Err(Error::Compacted { .. })));
    let mut watcher = store.watch(KeyRange::prefix("o/"), first.next()).unwrap();
    assert_eq!(watcher.changes().await.unwrap().0[0].revision(), second);
    // What is forgotten already needs no forgetting, and what hasn't happened can't be forgotten.
    store.compact(first).await.unwrap();
    store.compact(Revision(u64::MAX / 4)).await.unwrap();
    let state = store.snapshot();
    assert!(state.compacted() >= second && state.compacted() <= state.revision());
    assert!(put(store, "o/a", "3").await > second);
}

async fn leases_take_their_keys_along(store: &dyn Store) {
    let lease = store.grant(60).await.unwrap();
    let other = store.grant(120).await.unwrap();
    assert_ne!(lease, other);
    let ttl = |id| store.snapshot().leases().find(|(lease, _)| *lease == id).map(|(_, ttl)| ttl);
    assert_eq!((ttl(lease), ttl(other)), (Some(60), Some(120)));
    for (key, lease) in [("l/a", lease), ("l/b", lease), ("l/c", other), ("l/d", lease)] {
        let op = Op::Put { key: key.into(), value: "v".into(), lease };
        store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
        assert_eq!(get(store, key).unwrap().lease, lease);
    }
    put(store, "l/d", "on no lease any more").await;
    let condition = Condition::Lease("l/a".into(), Compare::Equal, lease);
    assert!(store.txn(Txn { conditions: vec![condition], ..Txn::default() }).await.unwrap().succeeded);
    store.keep_alive(lease).await.unwrap();
    let mut watcher = store.watch(KeyRange::prefix("l/"), Revision::ZERO).unwrap();
    store.revoke(lease).await.unwrap();
    let (events, _) = watcher.changes().await.unwrap();
    assert_eq!(events.len(), 2, "both at one revision");
    let left: Vec<Bytes> = store.snapshot().range(&KeyRange::prefix("l/")).map(|kv| kv.key.clone()).collect();
    assert_eq!(left, ["l/c", "l/d"]);
    assert_eq!(ttl(lease), None);
    assert!(matches!(store.revoke(lease).await, Err(Error::LeaseNotFound(id)) if id == lease));
    assert!(matches!(store.keep_alive(lease).await, Err(Error::LeaseNotFound(id)) if id == lease));
    store.revoke(other).await.unwrap();
}

async fn writers_side_by_side_lose_nothing(store: &dyn Store) {
    const EACH: usize = 20;
    let add = async || {
        for _ in 0..EACH {
            loop {
                let kv = get(store, "s/sum");
                let sum = kv.as_ref().map_or(0, |kv| kv.value.len());
                let revision = kv.map_or(Revision::ZERO, |kv| kv.mod_revision);
                let unchanged = Condition::ModRevision("s/sum".into(), Compare::Equal, revision);
                let put = Op::put("s/sum", vec![b'x'; sum + 1]);
                let txn = Txn { conditions: vec![unchanged], success: vec![put], ..Txn::default() };
                if store.txn(txn).await.unwrap().succeeded {
                    break;
                }
            }
        }
    };
    futures::future::join_all((0..4).map(|_| add())).await;
    let kv = get(store, "s/sum").unwrap();
    assert_eq!((kv.value.len(), kv.version), (4 * EACH, 4 * EACH as u64));
}
