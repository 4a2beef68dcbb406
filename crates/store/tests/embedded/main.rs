//! Whole members over loopback TLS in one process: elections, crashes, restarts.
#![allow(clippy::disallowed_methods)] // A test is a driver.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod earlier;
mod harness;
mod members;
mod sealing;

use std::time::{Duration, Instant, SystemTime};

use harness::{Cluster, PATIENCE, configs, configs_by, host_identity, keys, put};
use pki::{Authority, Identity};
use store::{Config, Embedded, Error, KeyRange, LeaseId, Revision, StartError, Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::start(1).await;
    for round in 0..3 {
        let store = cluster.members[0].clone().unwrap();
        for n in 0..20 {
            put(&store, &format!("{round}/{n:02}")).await;
        }
        assert_eq!(store.read().await.unwrap().len(), (round + 1) * 20);
        if round == 1 {
            store.shutdown().await;
            assert!(matches!(store.txn(Txn::put("k", "v")).await, Err(Error::Closed)));
        }
        drop(store);
        cluster.crash(0);
        cluster.restart(0).await;
    }
    let store = cluster.members[0].as_ref().unwrap();
    assert_eq!(store.read().await.unwrap().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_survive_the_crash_of_any() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader().await;
        for (n, store) in cluster.up().enumerate() {
            for i in 0..10 {
                let key = format!("{round}/{n}/{i}");
                put(store, &key).await;
                assert!(store.snapshot().get(key.as_bytes()).is_some(), "the writer sees its own write");
                acknowledged.push(key);
            }
        }
        // Now the leader (or a follower, every other time) dies while a survivor writes on.
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        cluster.crash(victim);
        let survivor = cluster.up().next().unwrap().clone();
        let key = format!("{round}/after");
        put(&survivor, &key).await;
        acknowledged.push(key);
        drop(survivor);
        cluster.restart(victim).await;
        acknowledged.sort();
        for store in cluster.up() {
            store.read().await.unwrap();
            assert_eq!(keys(store), acknowledged, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_gets_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let mut configs = configs(folder.path(), 3);
    for config in &mut configs {
        config.limits.snapshot_bytes = 10_000;
        config.limits.trailing_bytes = 1000;
    }
    let mut cluster = Cluster { members: vec![None; 3], configs, folder };
    for n in 0..3 {
        cluster.restart(n).await;
    }
    let away = (cluster.leader().await + 1) % 3;
    cluster.crash(away);
    let store = cluster.up().next().unwrap().clone();
    // Larger than one piece of a snapshot, so that putting the pieces together is put to the test.
    let value = vec![7u8; 10_000];
    for n in 0..300 {
        store.txn(Txn::put(format!("{n:03}"), value.clone())).await.unwrap();
    }
    cluster.restart(away).await;
    let back = cluster.members[away].as_ref().unwrap();
    assert_eq!(back.read().await.unwrap().len(), 300);
    put(back, "written by the one who was away").await;
    let leader = cluster.members[cluster.leader().await].as_ref().unwrap();
    for name in [
        "snapshots_sent_total",
        "elections_won_total",
        "log_sync_duration_seconds_count",
        "snapshot_save_duration_seconds_count",
        "snapshot_bytes",
    ] {
        assert!(counted(leader, name) > 0, "{name}");
    }
    assert_eq!(counted(&store, "commit_duration_seconds_count"), 300);
    assert!(counted(back, "snapshots_received_total") > 0);
    let log_files = std::fs::read_dir(&cluster.configs[away].data_dir).unwrap().count();
    assert!(log_files < 10, "{log_files} files");
    cluster.crash(away);
    cluster.restart(away).await;
    assert_eq!(cluster.members[away].as_ref().unwrap().read().await.unwrap().len(), 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_shuts_down_hands_over_first() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let other = cluster.members[(leader + 1) % 3].clone().unwrap();
    put(&other, "before").await;
    let start = Instant::now();
    cluster.members[leader].as_ref().unwrap().shutdown().await;
    put(&other, "after").await;
    println!("handed over in {:?}", start.elapsed());
    assert!(!cluster.members[leader].as_ref().unwrap().leadership().borrow().is_me);
    assert_eq!(keys(&other), ["after", "before"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_and_watches_see_it() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.members[(leader + 1) % 3].as_ref().unwrap();
    let mut watcher = follower.watch(KeyRange::prefix("/"), Revision::ZERO).unwrap();
    let lease = follower.grant(1).await.unwrap();
    let op = store::Op::Put { key: "/leased".into(), value: "v".into(), lease };
    follower.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    follower.keep_alive(lease).await.unwrap();
    assert!(matches!(follower.keep_alive(LeaseId(lease.0 + 1)).await, Err(Error::LeaseNotFound(_))));
    let (events, _) = watcher.changes().await.unwrap();
    assert!(matches!(&events[..], [store::Event::Put { .. }]));
    let (events, state) = watcher.changes().await.unwrap();
    assert!(matches!(&events[..], [store::Event::Delete { .. }]));
    assert_eq!(state.leases().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_all_members_are_serialized() {
    let cluster = Cluster::start(3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for store in cluster.up() {
        let store = store.clone();
        tasks.spawn(async move {
            let mut added = 0;
            while added < 30 {
                let state = store.read().await.unwrap();
                let old = state.get(b"counter");
                let seen = old.map_or(Revision::ZERO, |kv| kv.mod_revision);
                let value: u64 =
                    old.map_or(0, |kv| std::str::from_utf8(&kv.value.bytes()).unwrap().parse().unwrap());
                let condition = store::Condition::ModRevision("counter".into(), store::Compare::Equal, seen);
                let mut txn = Txn::put("counter", (value + 1).to_string());
                txn.conditions.push(condition);
                added += u64::from(store.txn(txn).await.unwrap().succeeded);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let state = cluster.members[0].as_ref().unwrap().read().await.unwrap();
    assert_eq!(state.get(b"counter").unwrap().value, "90".into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut configs = configs(folder.path(), 3);
    configs[0].timing.request_timeout = Duration::from_millis(300);
    let alone = Embedded::start(configs.remove(0)).await.unwrap();
    assert!(matches!(alone.txn(Txn::put("k", "v")).await, Err(Error::Unavailable)));
    assert!(matches!(alone.read().await, Err(Error::Unavailable)));
    assert!(!alone.leadership().borrow().is_me);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_and_answers_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = configs(folder.path(), 1).remove(0);
    let store = Embedded::start(config.clone()).await.unwrap();
    put(&store, "k").await;
    drop(store);
    config.limits.disk_reserve = u64::MAX;
    let store = Embedded::start(config.clone()).await.unwrap();
    let start = Instant::now();
    while !matches!(store.txn(Txn::put("x", "v")).await, Err(Error::NoSpace(_))) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(store.read().await.unwrap().get(b"k").is_some());
    drop(store);
    config.limits.disk_reserve = 0;
    put(&Embedded::start(config).await.unwrap(), "y").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_others_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let configs = configs(folder.path(), 3);
    let store = Embedded::start(configs[0].clone()).await.unwrap();
    let elsewhere = |config: &Config| Config { listen: "127.0.0.1:0".parse().unwrap(), ..config.clone() };
    let refused = |config: Config| async { Embedded::start(config).await.unwrap_err() };
    let own = elsewhere(&configs[0]);
    assert!(matches!(refused(own.clone()).await, StartError::InUse(_)));
    assert!(matches!(refused(configs[0].clone()).await, StartError::Listen { .. }));
    drop(store);

    let other_cluster = Config { cluster_id: "other".into(), ..own.clone() };
    let error = refused(other_cluster).await;
    assert!(matches!(error, StartError::Foreign { .. }));
    println!("{error}");
    let other_member = Config { name: "n2".into(), ..own.clone() };
    assert!(matches!(refused(other_member).await, StartError::Foreign { .. }));
    let mut unknown = own;
    unknown.name = "n9".into();
    assert!(matches!(refused(unknown).await, StartError::Config(_)));
}

/// Says something as `identity` to a member, and waits until the member hangs up.
async fn turned_away(authority: &Authority, identity: &Identity, member: &Config, words: Vec<u8>) -> String {
    let tls = identity.client_config(&authority.trust().unwrap(), &[]).unwrap();
    let stream = tokio::net::TcpStream::connect(member.listen).await.unwrap();
    let name = member.name.clone().try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap();
    // The member may hang up before it has heard all.
    let _ = stream.write_all(&words).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{words:?}");
    // It says why, in a frame of the kind 4 whose words stand behind the kind of refusal and their length.
    assert!(answer.is_empty() || answer[4] == 4, "{words:?}: {answer:?}");
    String::from_utf8_lossy(answer.get(7..).unwrap_or_default()).into_owned()
}

fn hello(cluster: &str, id: u8, member: &str) -> Vec<u8> {
    let mut content = vec![0, 2, cluster.len() as u8];
    content.extend(cluster.as_bytes());
    content.push(id);
    for text in [member, "127.0.0.1:9"] {
        content.push(text.len() as u8);
        content.extend(text.as_bytes());
    }
    frame(content)
}

fn frame(content: Vec<u8>) -> Vec<u8> {
    [&(content.len() as u32).to_le_bytes()[..], &content].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create("test", SystemTime::now()).unwrap();
    let config = configs_by(&authority, folder.path(), 3).remove(0);
    let _store = Embedded::start(config.clone()).await.unwrap();
    let admin = authority.admin_identity(SystemTime::now()).unwrap();
    let n2 = host_identity(&authority, "n2");
    let mut newer = hello("test", 2, "n2");
    newer[5] = 9;
    let table = [
        (&admin, hello("test", 2, "n2"), "no certificate"),
        (&n2, hello("test", 3, "n3"), "no certificate"),
        (&n2, hello("test", 9, "n9"), "no certificate"),
        (&n2, hello("test", 0, "n9"), "no certificate"),
        (&n2, hello("test", 3, "n2"), "member 3 is not"),
        (&n2, hello("test", 1, "n2"), "member 1 is not"),
        (&n2, hello("other", 2, "n2"), "it is of cluster \"other\", n1 of another one"),
        (&n2, newer, "n1 speaks version 2"),
        (&n2, frame(vec![1, 2, 3]), ""),
        (&n2, vec![0xff; 100], ""),
        (&n2, [hello("test", 2, "n2"), frame(vec![0xff; 50])].concat(), ""),
        (&n2, [hello("test", 2, "n2"), frame(vec![3, 1])].concat(), ""),
    ];
    for (identity, words, why) in table {
        let said = turned_away(&authority, identity, &config, words).await;
        assert!(said.contains(why), "{said:?} says nothing of {why:?}");
    }
}

/// One of a member's metrics.
fn counted(store: &Embedded, name: &str) -> u64 {
    let mut text = String::new();
    store.metrics().unwrap().write(&mut text);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("holdfast_store_{name} ")));
    line.unwrap().parse().unwrap()
}
