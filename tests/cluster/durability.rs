//! What was acknowledged is there after any end.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::harness::{Cluster, wait_for};

fn config_map(n: usize) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(format!("written-{n}")), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 3, "auto");
    cluster.wait_until_ready(3).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");

    // Writes go on while everything is killed; those that were answered are counted.
    let writer = tokio::spawn(async move {
        for n in 0.. {
            if maps.create(&PostParams::default(), &config_map(n)).await.is_err() {
                return n;
            }
        }
        unreachable!("the cluster is killed")
    });
    let written = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    wait_for("some writes", || async { written.get_opt("written-50").await.ok()? }).await;
    cluster.kill_hosts();
    drop(cluster);
    let acknowledged = writer.await.unwrap();

    let cluster = Cluster::start(dir.path(), 3, "auto");
    cluster.wait_until_ready(3).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    for n in 0..acknowledged {
        let name = format!("written-{n}");
        assert!(maps.get_opt(&name).await.unwrap().is_some(), "{name} of {acknowledged} is lost");
    }
}

#[tokio::test]
async fn one_host_alone_is_a_cluster_and_ends_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1, "auto");
    cluster.wait_until_ready(1).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    maps.create(&PostParams::default(), &config_map(1)).await.unwrap();
    assert_eq!(cluster.signal(libc::SIGINT), Some(0), "Ctrl-C ends it cleanly");

    let cluster = Cluster::start(dir.path(), 1, "auto");
    cluster.wait_until_ready(1).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    assert!(maps.get_opt("written-1").await.unwrap().is_some());
}
