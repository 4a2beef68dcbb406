//! Several members on one etcd, which others use too.

use etcd::proto::{CompactionRequest, PutRequest};
use store::{Error, Event, KeyRange, Revision, Store, Txn};

use crate::etcds::{Etcds, start};
use crate::suite::put;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_all_see() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let (first, second) = (etcds.engine("n1").await, etcds.engine("n2").await);
    let mut watcher = second.watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    for n in 0..50 {
        put(&*first, "/a", &n.to_string()).await;
        let seen = second.read().await.unwrap();
        assert_eq!(seen.get(b"/a").unwrap().value.bytes(), n.to_string(), "a read is as new as any write");
        assert_eq!(seen.get(b"/a"), first.snapshot().get(b"/a"));
    }
    let mut told = 0;
    while told < 50 {
        told += watcher.changes().await.unwrap().0.len();
    }
    let lease = first.grant(60).await.unwrap();
    second.read().await.unwrap();
    assert!(second.snapshot().leases().eq([(lease, 60)]));
    second.revoke(lease).await.unwrap();
    first.read().await.unwrap();
    assert_eq!(first.snapshot().leases().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_later_knows_the_history() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let first = etcds.engine("n1").await;
    let revisions =
        [put(&*first, "/a", "1").await, put(&*first, "/a", "2").await, put(&*first, "/b", "3").await];
    first.compact(revisions[0]).await.unwrap();
    let second = etcds.engine("n2").await;
    let (known, found) = (first.snapshot(), second.snapshot());
    assert_eq!(found.compacted(), revisions[0]);
    assert!(known.range(&KeyRange::prefix("")).eq(found.range(&KeyRange::prefix(""))));
    assert!(known.events(revisions[1]).eq(found.events(revisions[1])));
    assert_eq!(&found.at(revisions[0]).unwrap().get(b"/a").unwrap().value.bytes()[..], b"1");
    let mut watcher = second.watch(KeyRange::key("/b"), revisions[1]).unwrap();
    assert_eq!(watcher.changes().await.unwrap().0[0].revision(), revisions[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_the_same_etcd_do_no_harm() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let engine = etcds.engine("n1").await;
    let stranger = etcds.client();
    let mut watcher = engine.watch(KeyRange::prefix(""), Revision::ZERO).unwrap();
    let mut newest = 0;
    for n in 0..20 {
        for key in ["/holdfas", "/holdfast", "/holdfast0", "/registry/a"] {
            let question = PutRequest { key: key.into(), value: "x".into(), ..Default::default() };
            newest = stranger.put(question).await.unwrap().header.unwrap().revision;
        }
        let state = engine.read().await.unwrap();
        assert!(state.revision().0 >= newest as u64, "a read is as new as etcd");
        let response = engine.txn(Txn::default()).await.unwrap();
        assert!(engine.snapshot().revision() >= response.revision);
        put(&*engine, "/a", &n.to_string()).await;
    }
    // Strangers may compact: a connected engine need not care.
    let question = CompactionRequest { revision: newest, physical: true };
    stranger.compact(question).await.unwrap();
    put(&*engine, "/a", "last").await;
    let mut told = Vec::new();
    while told.len() < 21 {
        told.extend(watcher.changes().await.unwrap().0);
    }
    assert!(
        told.iter().all(|event| matches!(event, Event::Put { current, .. } if &current.key[..] == b"/a"))
    );
    // An engine that starts now learns the newest state, and that there is no history before it.
    let late = start(etcds.config("n2")).await;
    assert!(late.snapshot().range(&KeyRange::prefix("")).eq(engine.snapshot().range(&KeyRange::prefix(""))));
    let refused = late.watch(KeyRange::prefix(""), told[0].revision());
    assert!(matches!(refused, Err(Error::Compacted { .. })));
}
