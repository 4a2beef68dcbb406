//! Connections and etcds that fail: nothing is lost, missed or done twice.

use std::time::Duration;

use etcd::proto::CompactionRequest;
use store::{Error, Event, KeyRange, Revision, Store, Txn, Watcher};

use crate::etcds::{Etcds, PATIENCE, leader, until};
use crate::link::How;
use crate::suite::put;

const OPEN: How = How::Open(Duration::ZERO);

/// The values that a watcher gets until it gets `last`.
async fn told(watcher: &mut Watcher, last: &str) -> Vec<String> {
    let mut values = Vec::new();
    while values.last().map(String::as_str) != Some(last) {
        let changes = tokio::time::timeout(PATIENCE, watcher.changes()).await.expect("events come");
        values.extend(changes.unwrap().0.iter().map(|event| match event {
            Event::Put { current, .. } => String::from_utf8(current.value.bytes().to_vec()).unwrap(),
            Event::Delete { .. } => "deleted".into(),
        }));
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_misses_nothing_while_its_connection_breaks() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let writer = etcds.engine("n1").await;
    let (reader, link) = etcds.linked("n2").await;
    let mut watcher = reader.watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    for n in 0..100 {
        match n {
            10 | 70 => link.set(How::Cut),
            30 | 90 => link.set(OPEN),
            40 => link.set(How::Silent),
            60 => link.set(OPEN),
            _ => {}
        }
        put(&*writer, "/a", &n.to_string()).await;
    }
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(told(&mut watcher, "99").await, expected);
    assert_eq!(reader.read().await.unwrap().get(b"/a"), writer.snapshot().get(b"/a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_during_an_absence_is_read_anew() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let writer = etcds.engine("n1").await;
    let (reader, link) = etcds.linked("n2").await;
    put(&*writer, "/old", "1").await;
    put(&*writer, "/kept", "1").await;
    reader.read().await.unwrap();
    let mut behind = reader.watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    // No connection is left before anything changes: none of it may arrive.
    link.cut().await;
    let gone = Txn { success: vec![store::Op::Delete(KeyRange::key("/old"))], ..Txn::default() };
    writer.txn(gone).await.unwrap();
    put(&*writer, "/new", "2").await;
    let newest = put(&*writer, "/new", "3").await;
    // By the cluster's own leader, or by somebody else: then no member has what came before.
    for by_the_cluster in [true, false] {
        let newest = put(&*writer, "/again", "4").await.max(newest);
        if by_the_cluster {
            writer.compact(newest).await.unwrap();
        } else {
            let question = CompactionRequest { revision: newest.0 as i64, physical: true };
            etcds.client().compact(question).await.unwrap();
        }
        link.set(OPEN);
        let state = reader.read().await.unwrap();
        assert!(state.range(&KeyRange::prefix("")).eq(writer.snapshot().range(&KeyRange::prefix(""))));
        assert!(state.compacted() >= newest);
        assert!(matches!(behind.changes().await, Err(Error::Compacted { .. })));
        behind = reader.watch(KeyRange::prefix("/"), state.revision().next()).unwrap();
        put(&*writer, "/a", "5").await;
        assert_eq!(told(&mut behind, "5").await, ["5"]);
        link.cut().await;
        put(&*writer, "/a", "6").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_answer_is_lost_happens_once_at_most() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let (engine, link) = etcds.linked("n1").await;
    let (answered, mut progress) = tokio::sync::watch::channel(0_u64);
    let breaking = tokio::spawn(async move {
        for n in 0..15 {
            // Some changes are answered, and then one breaks that is under way: the cut comes at another moment of it each time.
            let before = *progress.borrow_and_update();
            progress.wait_for(|done| *done >= before + 3).await.unwrap();
            tokio::time::sleep(Duration::from_micros(150 * n)).await;
            link.cut().await;
            link.set(OPEN);
        }
        link
    });
    let (mut done, mut unknown) = (0, 0);
    while !breaking.is_finished() {
        match engine.txn(Txn::put("/a", "x")).await {
            Ok(_) => done += 1,
            Err(Error::Unavailable) => unknown += 1,
            Err(other) => panic!("{other}"),
        }
        answered.send_replace(done);
    }
    let _link = breaking.await.unwrap();
    let version = engine.read().await.unwrap().get(b"/a").unwrap().version;
    eprintln!("{done} answered, {unknown} unknown, {version} done");
    assert!((done..=done + unknown).contains(&version), "{done} + {unknown}: {version}");
    assert!(done > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_etcd_is_slow_and_no_more() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let (engine, link) = etcds.linked("n1").await;
    leader(&[&engine]).await;
    link.set(How::Open(Duration::from_millis(60)));
    let mut leadership = engine.leadership();
    // A lease of two seconds runs out when this machine stands still for so long, which is no fault of etcd's.
    for _ in 0..3 {
        leadership.borrow_and_update();
        for n in 0..20 {
            put(&*engine, "/a", &n.to_string()).await;
            assert_eq!(engine.read().await.unwrap().get(b"/a").unwrap().value.bytes(), n.to_string());
        }
        if !leadership.has_changed().unwrap() {
            return;
        }
        leader(&[&engine]).await;
    }
    panic!("leadership goes each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_etcd_of_three_may_die() {
    let Some(mut etcds) = Etcds::start(3).await else { return };
    let engines = [etcds.engine("n1").await, etcds.engine("n2").await];
    let mut watcher = engines[1].watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    let mut acknowledged = 0;
    for victim in 0..3 {
        etcds.power_off(victim);
        for n in 0..20 {
            let key = format!("/{victim}/{n}");
            // Where the answer was lost, the caller asks again, as callers do.
            until_written(&*engines[n % 2], &key).await;
            acknowledged += 1;
        }
        etcds.power_on(victim);
        etcds.answers().await;
    }
    for engine in &engines {
        assert_eq!(until_read(&**engine).await, acknowledged);
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < acknowledged {
        let changes = tokio::time::timeout(PATIENCE, watcher.changes()).await.expect("events come");
        seen.extend(changes.unwrap().0.iter().map(|event| event.key().clone()));
    }
    leader(&[&engines[0], &engines[1]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_etcd_may_go_and_come_back() {
    let Some(mut etcds) = Etcds::start(3).await else { return };
    let engine = etcds.engine("n1").await;
    let mut watcher = engine.watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    put(&*engine, "/a", "before").await;
    leader(&[&engine]).await;
    for n in 0..3 {
        etcds.power_off(n);
    }
    until(|| (!engine.leadership().borrow().is_me).then_some(())).await;
    assert!(matches!(engine.read().await, Err(Error::Unavailable)));
    assert!(matches!(engine.txn(Txn::put("/a", "lost")).await, Err(Error::Unavailable)));
    assert_eq!(
        &engine.snapshot().get(b"/a").unwrap().value.bytes()[..],
        b"before",
        "what is known stays known"
    );
    for n in 0..3 {
        etcds.power_on(n);
    }
    until_written(&*engine, "/b").await;
    leader(&[&engine]).await;
    assert_eq!(told(&mut watcher, "v").await, ["before", "v"]);
}

async fn until_written(store: &dyn Store, key: &str) {
    let write = async {
        while let Err(error) = store.txn(Txn::put(key.to_owned(), "v")).await {
            assert!(matches!(error, Error::Unavailable), "{error}");
        }
    };
    tokio::time::timeout(PATIENCE, write).await.expect("writes go on");
}

async fn until_read(store: &dyn Store) -> usize {
    let read = async {
        loop {
            if let Ok(state) = store.read().await {
                return state.len();
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("reads go on")
}
