//! A host whose store is gone becomes a full member again by itself, under a new number.

use std::fs;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::timeout;

use crate::harness::{Cluster, wait_for};

/// Over a connection of its own: an old one may lead to a host that stands still.
async fn maps(cluster: &Cluster) -> Option<Api<ConfigMap>> {
    Some(Api::namespaced(cluster.client().await?, "default"))
}

async fn write(cluster: &Cluster, name: &str) -> Option<()> {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let map = ConfigMap { metadata, ..ConfigMap::default() };
    let (maps, asked) = (maps(cluster).await?, PostParams::default());
    match timeout(Duration::from_secs(5), maps.create(&asked, &map)).await.ok()? {
        Ok(_) => Some(()),
        // It was written though the answer got lost.
        Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
        Err(_) => None,
    }
}

#[tokio::test]
async fn a_host_that_lost_its_store_joins_anew_and_another_one_may_go_then() {
    let cluster = Cluster::up().await;
    wait_for("the first write", || write(&cluster, "before")).await;

    // A stopped host writes nothing into a folder that comes and goes.
    let folder = cluster.folder().join("n2");
    cluster.signal_host("n2", libc::SIGSTOP);
    fs::rename(folder.join("data/store"), folder.join("lost")).unwrap();
    cluster.signal_host("n2", libc::SIGKILL);
    let says = |words: &'static str| {
        let log = folder.join("host.log");
        move || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            async move { log.contains(words).then_some(()) }
        }
    };
    wait_for("n2 to be a voting member again", says("members=n1 (1), n3 (3), n2 (4)")).await;

    // Its vote is needed now.
    cluster.signal_host("n1", libc::SIGSTOP);
    wait_for("a write without n1", || write(&cluster, "without-n1")).await;
    cluster.signal_host("n1", libc::SIGCONT);
    for name in ["before", "without-n1"] {
        wait_for(name, || async { maps(&cluster).await?.get_opt(name).await.ok()? }).await;
    }

    // Its old data is nobody's any more: a host that brings it back gets an error that says what to do.
    cluster.signal_host("n2", libc::SIGSTOP);
    fs::rename(folder.join("data/store"), folder.join("new")).unwrap();
    fs::rename(folder.join("lost"), folder.join("data/store")).unwrap();
    cluster.signal_host("n2", libc::SIGKILL);
    let removed = says("was removed from the cluster: move the folder away");
    wait_for("n2 to say that it was removed", removed).await;

    // The others go on without it, until that is done.
    wait_for("a write without n2", || write(&cluster, "without-n2")).await;
    fs::rename(folder.join("data/store"), folder.join("removed")).unwrap();
    wait_for("n2 to be a voting member once more", says("members=n1 (1), n3 (3), n2 (5)")).await;
}
