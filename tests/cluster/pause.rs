//! A stopped virtual machine, a stalled disk: a second's pause must undo itself.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};

use crate::harness::{Cluster, is_ready, wait_for};

const WORKLOAD: &str = include_str!("../../crates/drill/workload.yaml");

async fn uids(client: &Client) -> Option<Vec<String>> {
    let pods = Api::<Pod>::default_namespaced(client.clone()).list(&ListParams::default()).await.ok()?;
    let mut uids: Vec<_> = pods.iter().filter_map(ResourceExt::uid).collect();
    uids.sort();
    Some(uids)
}

#[tokio::test]
async fn a_host_that_pauses_for_a_second_loses_no_pod() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
    let deployment = WORKLOAD.split("\n---\n").next().unwrap();
    let deployment: Deployment = serde_yaml_ng::from_str(deployment).unwrap();
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    wait_for("three available replicas", || async {
        (deployments.get("web").await.ok()?.status?.available_replicas == Some(3)).then_some(())
    })
    .await;
    let before = uids(&client).await.unwrap();

    for host in ["n1", "n2", "n3"] {
        cluster.pause(host, Duration::from_secs(1)).await;
        wait_for(&format!("{host} and all others to be Ready"), || async {
            let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
            nodes.iter().all(is_ready).then_some(())
        })
        .await;
        // A write through the leader shows that whoever was deposed has caught up with it.
        let patch = serde_json::json!({"metadata": {"annotations": {"paused": host}}});
        wait_for("a write", || async {
            deployments.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.ok()
        })
        .await;
        assert_eq!(uids(&client).await.unwrap(), before, "{host}'s pause cost a pod");
    }
}
