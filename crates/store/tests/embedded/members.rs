//! Members that are added, promoted, removed and replaced, lose their disks or were away for long.

use std::sync::Arc;
use std::time::Duration;

use pki::Authority;
use store::{Config, Embedded, Error, Member, MemberError, MemberId, Start, StartError, Store};

use crate::harness::{Cluster, configs, keys, put, until};

/// A cluster of the first `voters` of `all` configurations: the others may come later.
async fn some_of(all: usize, voters: usize) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let mut configs = configs(folder.path(), all);
    let peers: Vec<String> = configs.iter().map(|config| config.name.clone()).skip(voters).collect();
    for (n, config) in configs.iter_mut().enumerate() {
        config.limits.snapshot_bytes = 10_000;
        config.limits.trailing_bytes = 1000;
        if n < voters {
            config.peers.retain(|name, _| !peers.contains(name));
        } else {
            config.start = Start::Join;
        }
    }
    let mut cluster = Cluster { members: vec![None; all], configs, folder };
    for n in 0..voters {
        cluster.restart(n).await;
    }
    cluster
}

fn voters(store: &Embedded) -> Vec<MemberId> {
    store.members().iter().filter(|member| !member.is_learner).map(|member| member.id).collect()
}

fn named(store: &Embedded, name: &str) -> Option<Member> {
    store.members().into_iter().find(|member| member.name == name)
}

/// Waits until all that run agree on who votes.
async fn until_voters(cluster: &Cluster, expected: [u64; 3]) {
    let expected = expected.map(MemberId);
    until(|| cluster.up().all(|store| voters(store) == expected).then_some(())).await;
}

/// Does what may be refused for a moment until it is not.
async fn insist<T, F: Future<Output = Result<T, Error>>>(mut what: impl FnMut() -> F) -> T {
    for _ in 0..1000 {
        match what().await {
            Ok(value) => return value,
            Err(
                Error::Members(MemberError::Busy | MemberError::Quorum { .. } | MemberError::Behind(_))
                | Error::Unavailable,
            ) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is refused for too long");
}

async fn refused<T: std::fmt::Debug>(what: impl Future<Output = Result<T, Error>>) -> MemberError {
    match what.await {
        Err(Error::Members(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_one_to_three_and_shrinks_again() {
    let mut cluster = some_of(3, 1).await;
    put(cluster.members[0].as_ref().unwrap(), "first").await;
    for n in [1, 2] {
        cluster.restart(n).await;
        let store = cluster.members[n].clone().unwrap();
        until(|| named(&store, &format!("n{}", n + 1)).filter(|member| !member.is_learner)).await;
        put(&store, &format!("by {n}")).await;
    }
    until_voters(&cluster, [1, 2, 3]).await;
    // Any two of them go on.
    let leader = cluster.leader().await;
    cluster.crash(leader);
    put(cluster.up().next().unwrap(), "without one").await;
    cluster.restart(leader).await;
    // The leader is removed by itself, and hands over first; it ends as one that was removed.
    let leader = cluster.leader().await;
    let store = cluster.members[leader].clone().unwrap();
    insist(|| store.remove_member(store.id())).await;
    store.removed().await;
    assert!(matches!(store.read().await, Err(Error::Removed)));
    drop(store);
    cluster.crash(leader);
    let refused = Embedded::start(cluster.configs[leader].clone()).await.unwrap_err();
    assert!(matches!(refused, StartError::Removed(_)), "{refused}");
    let last = cluster.leader().await;
    let store = cluster.members[last].clone().unwrap();
    let other = until(|| store.members().into_iter().find(|member| !member.is_me)).await;
    insist(|| store.remove_member(other.id)).await;
    assert_eq!(store.members().len(), 1);
    put(&store, "alone").await;
    assert_eq!(keys(&store), ["alone", "by 1", "by 2", "first", "without one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_do_harm_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let store = cluster.members[(leader + 1) % 3].clone().unwrap();
    put(&store, "k").await;
    let nowhere = "127.0.0.1:9".parse().unwrap();
    assert_eq!(refused(store.remove_member(MemberId(9))).await, MemberError::NotFound(MemberId(9)));
    assert_eq!(refused(store.promote_member(MemberId(1))).await, MemberError::NotLearner(MemberId(1)));
    assert_eq!(refused(store.add_member("n1", nowhere, true)).await, MemberError::NameTaken("n1".into()));
    let id = insist(|| store.add_member("n4", nowhere, true)).await;
    assert_eq!(id, MemberId(4));
    assert_eq!(refused(store.promote_member(id)).await, MemberError::Behind(id));
    let known = store.members();
    insist(|| store.remove_member(id)).await;
    assert_eq!(store.next_members(&known).await.len(), 3);
    assert_eq!(
        insist(|| store.add_member("n4", nowhere, false)).await,
        MemberId(5),
        "no number is used twice"
    );
    insist(|| store.remove_member(MemberId(5))).await;

    // With one of three away, none of the other two may go. It counts as there for a while after it was heard: by these two,
    // in their new lives, it never was.
    drop(store);
    let away = (leader + 2) % 3;
    cluster.crash(away);
    for n in [leader, (leader + 1) % 3] {
        cluster.crash(n);
        cluster.restart(n).await;
    }
    let store = cluster.members[leader].clone().unwrap();
    put(&store, "two go on").await;
    let quorum = |why: &MemberError| matches!(why, MemberError::Quorum { voters: 2, needed: 2, .. });
    for id in cluster.up().map(|member| member.id()).collect::<Vec<_>>() {
        // On a busy machine another one may lead meanwhile, which answers later.
        let why = loop {
            match store.remove_member(id).await {
                Err(Error::Unavailable | Error::Members(MemberError::Busy)) => {}
                answer => break answer,
            }
        };
        assert!(matches!(&why, Err(Error::Members(why)) if quorum(why)), "{why:?}");
    }
    insist(|| store.remove_member(MemberId(away as u64 + 1))).await;
    put(&store, "two are a cluster").await;
    // The one that was away hears that it is no member any more.
    cluster.restart(away).await;
    cluster.members[away].as_ref().unwrap().removed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_joins_anew_and_another_may_go_then() {
    let mut cluster = some_of(3, 3).await;
    for round in 0..3u64 {
        let victim = (cluster.leader().await + round as usize) % 3;
        let old = cluster.members[victim].as_ref().unwrap().id();
        cluster.crash(victim);
        let survivor = cluster.up().next().unwrap().clone();
        for n in 0..80 {
            put(&survivor, &format!("{round}/{n:02}")).await;
        }
        drop(survivor);
        let config = Config { start: Start::Join, ..cluster.configs[victim].clone() };
        std::fs::remove_dir_all(&config.data_dir).unwrap();
        cluster.configs[victim] = config;
        cluster.restart(victim).await;
        let back = cluster.members[victim].clone().unwrap();
        assert_eq!(back.id(), MemberId(4 + round));
        assert!(back.members().iter().all(|member| member.id != old));
        let name = cluster.configs[victim].name.clone();
        until(|| named(&back, &name).filter(|member| !member.is_learner)).await;
        assert_eq!(back.read().await.unwrap().len(), 80 * (round as usize + 1));
        drop(back);
        // Its vote counts: with one of the others away, writes go on.
        let other = (victim + 1) % 3;
        cluster.crash(other);
        let store = cluster.members[victim].clone().unwrap();
        until(|| store.leadership().borrow().leader.clone()).await;
        insist(|| async { store.txn(store::Txn::put("with two", "v")).await }).await;
        insist(|| async {
            store
                .txn(store::Txn {
                    success: vec![store::Op::Delete(store::KeyRange::key("with two"))],
                    ..Default::default()
                })
                .await
        })
        .await;
        drop(store);
        cluster.restart(other).await;
    }
}

#[tokio::test]
async fn who_is_to_join_and_has_nobody_to_ask_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { start: Start::Join, ..configs(folder.path(), 1).remove(0) };
    let refused = Embedded::start(config).await.unwrap_err();
    assert!(matches!(refused, StartError::Alone(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_member_says_what_to_do_and_that_works() {
    let mut cluster = some_of(3, 3).await;
    let victim = (cluster.leader().await + 1) % 3;
    for n in 0..80 {
        put(cluster.members[victim].as_ref().unwrap(), &format!("{n:02}")).await;
    }
    cluster.crash(victim);
    let config = Config { start: Start::Join, ..cluster.configs[victim].clone() };
    cluster.configs[victim] = config.clone();
    for (kind, place) in [("member.json", 3), ("snapshot-", 40), ("log-", 30)] {
        let files = std::fs::read_dir(&config.data_dir).unwrap().map(|file| file.unwrap().path());
        let is_kind =
            |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(kind);
        let file = files.filter(is_kind).min().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let mut rotten = bytes.clone();
        rotten[place] ^= 4;
        std::fs::write(&file, rotten).unwrap();
        let refused = Embedded::start(config.clone()).await.unwrap_err();
        let said = refused.to_string();
        assert!(matches!(refused, StartError::Damaged { .. }), "{said}");
        assert!(said.contains(&*file.to_string_lossy()) && said.contains("move the folder"), "{said}");
        std::fs::write(&file, bytes).unwrap();
    }
    // A log that is gone altogether is no new member either.
    let old = config.data_dir.with_extension("old");
    std::fs::create_dir(&old).unwrap();
    for file in std::fs::read_dir(&config.data_dir).unwrap().map(Result::unwrap) {
        if file.file_name() != "member.json" {
            std::fs::rename(file.path(), old.join(file.file_name())).unwrap();
        }
    }
    let refused = Embedded::start(config.clone()).await.unwrap_err();
    assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
    std::fs::rename(config.data_dir.join("member.json"), old.join("member.json")).unwrap();
    cluster.restart(victim).await;
    let back = cluster.members[victim].clone().unwrap();
    until(|| named(&back, &config.name).filter(|member| !member.is_learner)).await;
    assert_eq!(back.read().await.unwrap().len(), 80);

    // A member that brings the old folder back learns that the folder is nobody's any more.
    drop(back);
    cluster.crash(victim);
    std::fs::remove_dir_all(&config.data_dir).unwrap();
    std::fs::rename(&old, &config.data_dir).unwrap();
    cluster.restart(victim).await;
    cluster.members[victim].as_ref().unwrap().removed().await;
    cluster.crash(victim);
    assert!(matches!(Embedded::start(config).await, Err(StartError::Removed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_member_comes_back_when_all_others_were_replaced() {
    let mut cluster = some_of(3, 3).await;
    put(cluster.members[0].as_ref().unwrap(), "before").await;
    cluster.crash(2);
    for n in [0, 1] {
        let store = cluster.members[1 - n].clone().unwrap();
        for i in 0..100 {
            put(&store, &format!("{n}/{i:02}")).await;
        }
        drop(store);
        if n == 0 {
            // Two of three is a quorum only with both: the third helps while the first is replaced.
            cluster.restart(2).await;
            until(|| (cluster.members[2].as_ref().unwrap().snapshot().len() == 101).then_some(())).await;
        }
        cluster.crash(n);
        std::fs::remove_dir_all(&cluster.configs[n].data_dir).unwrap();
        cluster.configs[n].start = Start::Join;
        cluster.restart(n).await;
        let (store, name) = (cluster.members[n].clone().unwrap(), cluster.configs[n].name.clone());
        until(|| named(&store, &name).filter(|member| !member.is_learner)).await;
        if n == 0 {
            cluster.crash(2);
            // Days pass: the log is cut many times.
            for i in 0..300 {
                put(&store, &format!("days/{i:03}")).await;
            }
            cluster.restart(2).await;
            until(|| (cluster.members[2].as_ref().unwrap().snapshot().len() == 401).then_some(())).await;
        }
    }
    until_voters(&cluster, [3, 4, 5]).await;
    assert_eq!(cluster.members[2].as_ref().unwrap().read().await.unwrap().len(), 501);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_was_lost_comes_back() {
    let mut cluster = Cluster::start(3).await;
    put(cluster.members[0].as_ref().unwrap(), "before").await;
    for n in [0, 1] {
        cluster.crash(n);
    }
    let alone = cluster.members[2].clone().unwrap();
    until(|| {
        (!alone.leadership().borrow().is_me && alone.leadership().borrow().leader.is_none()).then_some(())
    })
    .await;
    let waits = tokio::spawn({
        let alone = alone.clone();
        async move { alone.txn(store::Txn::put("asked without a quorum", "v")).await }
    });
    cluster.restart(0).await;
    // It was asked in time, and one more makes a majority.
    waits.await.unwrap().unwrap();
    put(&alone, "after").await;
    drop(alone);
    cluster.restart(1).await;
    for store in cluster.up() {
        assert_eq!(store.read().await.unwrap().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_of_another_cluster_is_told_so() {
    let mut cluster = some_of(2, 1).await;
    cluster.configs[1].cluster_id = "other".into();
    let Err(refused) = Embedded::start(cluster.configs[1].clone()).await else { panic!("it was let in") };
    let said = refused.to_string();
    assert!(
        matches!(refused, StartError::NotLetIn { .. }) && said.contains("of cluster \"other\""),
        "{said}"
    );
    assert!(Authority::create("x", std::time::SystemTime::now()).is_ok());
    let store: &Arc<Embedded> = cluster.members[0].as_ref().unwrap();
    assert_eq!(store.members().len(), 1, "nothing changed");
}
