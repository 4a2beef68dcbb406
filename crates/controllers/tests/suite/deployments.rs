//! Deployments at the edges: no history, sets that were orphaned, pods that serve for too short a time.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use objects::{Delete, Meta, Propagation};
use serde_json::{Value, json};

async fn change(cluster: &Cluster, spec: Value) {
    cluster.patch("apps/v1", "Deployment", "default", "web", "", json!({"spec": spec})).await.unwrap();
}

fn uids<T: objects::Kind + 'static>(cluster: &Cluster) -> Vec<String> {
    let mut uids: Vec<String> =
        cluster.list::<T>().iter().map(|object| object.metadata().uid().unwrap().to_owned()).collect();
    uids.sort();
    uids
}

#[tokio::test]
async fn without_a_history_only_the_current_set_is_left() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 2, json!({})).await;
    change(&cluster, json!({"revisionHistoryLimit": 0})).await;
    cluster.settle().await;
    cluster.set_image("web", "web:2").await;
    cluster.settle().await;
    let sets = cluster.list::<ReplicaSet>();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].status.as_ref().unwrap().ready_replicas, Some(2));
}

#[tokio::test]
async fn a_new_deployment_takes_the_set_over_that_another_left() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    let (sets, pods) = (uids::<ReplicaSet>(&cluster), uids::<Pod>(&cluster));
    let orphan = Delete { propagation: Some(Propagation::Orphan), ..Delete::default() };
    cluster.delete("apps/v1", "Deployment", "default", "web", orphan).await;
    cluster.delete("v1", "Service", "default", "web", Delete::default()).await;
    cluster.settle().await;
    assert_eq!((uids::<ReplicaSet>(&cluster), uids::<Pod>(&cluster)), (sets.clone(), pods.clone()));
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    assert_eq!((uids::<ReplicaSet>(&cluster), uids::<Pod>(&cluster)), (sets, pods), "nothing is made anew");
    let deployment: Deployment = cluster.get("default", "web").unwrap();
    let set = cluster.list::<ReplicaSet>().remove(0);
    let owner = &set.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(Some(&owner.uid), deployment.metadata.uid.as_ref());
}

#[tokio::test]
async fn a_pod_is_available_once_it_served_for_long_enough() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 2, json!({})).await;
    change(&cluster, json!({"minReadySeconds": 10})).await;
    cluster.settle().await;
    let numbers = |cluster: &Cluster| {
        let deployment: Deployment = cluster.get("default", "web").unwrap();
        let status = deployment.status.unwrap();
        (status.ready_replicas, status.available_replicas, status.unavailable_replicas)
    };
    assert_eq!(numbers(&cluster), (Some(2), None, Some(2)));
    cluster.pass(Duration::from_secs(8));
    cluster.settle().await;
    assert_eq!(numbers(&cluster), (Some(2), None, Some(2)));
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    assert_eq!(numbers(&cluster), (Some(2), Some(2), None));
}

#[tokio::test]
async fn of_pods_that_serve_the_cheapest_goes_first() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 3, json!({})).await;
    cluster.settle().await;
    let names: Vec<String> =
        cluster.list::<Pod>().iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    for (name, cost) in names.iter().zip(["10", "-7", "3"]) {
        let cost = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
        cluster.patch("v1", "Pod", "default", name, "", cost).await.unwrap();
    }
    for (replicas, left) in [(2, vec![&names[0], &names[2]]), (1, vec![&names[0]])] {
        change(&cluster, json!({"replicas": replicas})).await;
        cluster.settle().await;
        let pods = cluster.list::<Pod>();
        assert_eq!(pods.iter().map(|pod| pod.metadata.name.as_ref().unwrap()).collect::<Vec<_>>(), left);
    }
}

#[tokio::test]
async fn a_replica_set_that_is_refused_is_said_until_it_is_made() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster
        .create(json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q", "namespace": "default"},
            "spec": {"hard": {"count/replicasets.apps": "0"}}}))
        .await;
    cluster.settle().await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    let progressing = |cluster: &Cluster| {
        let deployment: Deployment = cluster.get("default", "web").unwrap();
        let conditions = deployment.status.unwrap().conditions.unwrap();
        let found = conditions.into_iter().find(|condition| condition.type_ == "Progressing").unwrap();
        (found.status, found.reason.unwrap(), found.message.unwrap())
    };
    let (status, reason, message) = progressing(&cluster);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReplicaSetCreateError"));
    assert!(
        message.starts_with("Failed to create new replica set \"web-") && message.contains("exceeded quota"),
        "{message}"
    );
    assert!(!cluster.told("web", "ReplicaSetCreateError").is_empty());
    cluster.delete("v1", "ResourceQuota", "default", "q", Delete::default()).await;
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(progressing(&cluster).1, "NewReplicaSetAvailable");
}
