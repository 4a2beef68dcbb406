//! What namespaces get, what quotas count back, and what stays while it is used.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::Cluster;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
};
use objects::{Delete, Kind, Reader};
use serde_json::json;

fn used(cluster: &Cluster) -> String {
    let quota: ResourceQuota = cluster.get("default", "q").unwrap();
    quota.status.unwrap().used.unwrap()["pods"].0.clone()
}

fn is_there<T: Kind>(cluster: &Cluster, namespace: &str, name: &str) -> bool {
    Reader::<T>::get(&cluster.state(), namespace, name).is_some()
}

#[tokio::test]
async fn a_quota_counts_what_is_there_and_what_went() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    let quota = json!({"kind": "ResourceQuota", "apiVersion": "v1",
        "metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "3"}}});
    cluster.create(quota).await;
    cluster.settle().await;
    assert_eq!(used(&cluster), "2");

    let scale = |replicas: u32| json!({"spec": {"replicas": replicas}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", scale(3)).await.unwrap();
    cluster.settle().await;
    assert_eq!((used(&cluster).as_str(), cluster.list::<Pod>().len()), ("3", 3), "counted as they were made");
    cluster.patch("apps/v1", "Deployment", "default", "web", "", scale(1)).await.unwrap();
    cluster.settle().await;
    cluster.pass(Duration::from_secs(1));
    cluster.settle().await;
    assert_eq!(used(&cluster), "1");
}

#[tokio::test]
async fn a_claim_stays_while_a_pod_uses_it_and_a_volume_while_it_is_bound() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let storage = json!({"storage": "1Gi"});
    cluster
        .create(json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": storage}}}))
        .await;
    cluster
        .create(json!({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": storage, "hostPath": {"path": "/tmp/v"}}}))
        .await;
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    cluster.patch("v1", "PersistentVolume", "", "v", "status", phase("Bound")).await.unwrap();
    cluster
        .create(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}}))
        .await;
    cluster.settle().await;
    cluster.delete("v1", "PersistentVolumeClaim", "default", "c", Delete::default()).await;
    cluster.delete("v1", "PersistentVolume", "", "v", Delete::default()).await;
    cluster.settle().await;
    assert!(is_there::<PersistentVolumeClaim>(&cluster, "default", "c"), "a pod uses it");
    assert!(is_there::<PersistentVolume>(&cluster, "", "v"), "it is bound");

    let now = Delete { grace_seconds: Some(0), ..Delete::default() };
    cluster.delete("v1", "Pod", "default", "p", now).await;
    cluster.patch("v1", "PersistentVolume", "", "v", "status", phase("Released")).await.unwrap();
    cluster.settle().await;
    assert!(!is_there::<PersistentVolumeClaim>(&cluster, "default", "c"));
    assert!(!is_there::<PersistentVolume>(&cluster, "", "v"));
}

#[tokio::test]
async fn every_namespace_has_the_certificate_by_which_pods_believe_the_api() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})).await;
    cluster.settle().await;
    let certificate = |cluster: &Cluster| {
        let map = cluster.get::<ConfigMap>("shop", "kube-root-ca.crt");
        map.and_then(|map| map.data?.remove("ca.crt"))
    };
    assert_eq!(certificate(&cluster).as_deref(), Some(cluster::CERTIFICATE));
    let other = json!({"data": {"ca.crt": "another"}});
    cluster.patch("v1", "ConfigMap", "shop", "kube-root-ca.crt", "", other).await.unwrap();
    cluster.settle().await;
    assert_eq!(certificate(&cluster).as_deref(), Some(cluster::CERTIFICATE), "nobody replaces it");
    cluster.delete("v1", "ConfigMap", "shop", "kube-root-ca.crt", Delete::default()).await;
    cluster.settle().await;
    assert!(certificate(&cluster).is_some());
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    cluster.settle().await;
    assert!(!is_there::<Namespace>(&cluster, "", "shop"), "and it keeps no namespace from going");
}
