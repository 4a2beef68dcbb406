//! What namespaces get, what quotas count back, and what stays while it is used.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::{Cluster, wire};
use controllers::Key;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Secret,
};
use objects::{Delete, Kind, Reader};
use serde_json::json;
use store::{Store, Txn};

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
async fn a_set_whose_pods_are_refused_says_so_and_its_deployment_too() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let quota = json!({"kind": "ResourceQuota", "apiVersion": "v1",
        "metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}});
    cluster.create(quota).await;
    cluster.settle().await;
    cluster.deploy("web", 3, json!({})).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let set = cluster.list::<ReplicaSet>().remove(0);
    let status = set.status.clone().unwrap();
    assert_eq!((status.replicas, status.observed_generation), (2, set.metadata.generation));
    let condition = status.conditions.unwrap().remove(0);
    assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("ReplicaFailure", "True"));
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    let message = condition.message.unwrap();
    let wanted = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    assert!(message.starts_with("pods \"web-") && message.ends_with(wanted), "{message}");
    assert!(!cluster.told(set.metadata.name.as_ref().unwrap(), "FailedCreate").is_empty());
    let of_deployment = |cluster: &Cluster| {
        let deployment: Deployment = cluster.get("default", "web").unwrap();
        let conditions = deployment.status.unwrap().conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == "ReplicaFailure")
    };
    let condition = of_deployment(&cluster).unwrap();
    assert_eq!((condition.reason.as_deref(), condition.message), (Some("FailedCreate"), Some(message)));

    let more = json!({"spec": {"hard": {"pods": "5"}}});
    cluster.patch("v1", "ResourceQuota", "default", "q", "", more).await.unwrap();
    cluster.settle().await;
    cluster.pass(Duration::from_secs(40));
    cluster.settle().await;
    assert_eq!(cluster.list::<Pod>().len(), 3);
    assert_eq!(of_deployment(&cluster), None);
    let set = cluster.list::<ReplicaSet>().remove(0);
    assert_eq!(set.status.clone().unwrap().conditions, None);
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
    assert_eq!(certificate(&cluster).as_deref(), Some(crate::cluster::CERTIFICATE));
    let other = json!({"data": {"ca.crt": "another"}});
    cluster.patch("v1", "ConfigMap", "shop", "kube-root-ca.crt", "", other).await.unwrap();
    cluster.settle().await;
    assert_eq!(certificate(&cluster).as_deref(), Some(crate::cluster::CERTIFICATE), "nobody replaces it");
    cluster.delete("v1", "ConfigMap", "shop", "kube-root-ca.crt", Delete::default()).await;
    cluster.settle().await;
    assert!(certificate(&cluster).is_some());
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    cluster.settle().await;
    assert!(!is_there::<Namespace>(&cluster, "", "shop"), "and it keeps no namespace from going");
}

/// Puts Events into the store as the API would, each with the times that it tells.
async fn put_events(cluster: &Cluster, name: &str, count: usize, times: serde_json::Value) {
    for number in 0..count {
        let name = format!("{name}-{number}");
        let mut event = json!({"kind": "Event", "apiVersion": "v1", "type": "Normal", "involvedObject": {},
            "metadata": {"name": name, "namespace": "default", "uid": name}});
        for (field, value) in times.as_object().unwrap() {
            match field.as_str() {
                "creationTimestamp" => event["metadata"][field] = value.clone(),
                _ => event[field] = value.clone(),
            }
        }
        let key = objects::key("", "events", "default", &name);
        cluster.store.txn(Txn::put(key, event.to_string())).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_events_whose_time_is_over_are_gone_after_one_round() {
    let mut cluster = Cluster::new(&[]).await;
    cluster.settle().await;
    let now = cluster.now.wall;
    let hours = |hours: i64| wire(now + jiff::SignedDuration::from_hours(hours));
    let minutes = |minutes: i64| wire(now + jiff::SignedDuration::from_mins(minutes));
    put_events(&cluster, "due", 10_000, json!({"creationTimestamp": hours(-2)})).await;
    let repeated = json!({"creationTimestamp": hours(-9), "lastTimestamp": minutes(-61)});
    put_events(&cluster, "again", 1, repeated).await;
    let ahead =
        json!({"creationTimestamp": hours(-2), "lastTimestamp": hours(24 * 365), "eventTime": "never"});
    put_events(&cluster, "ahead", 1, ahead).await;
    let lately = json!({"creationTimestamp": hours(-9), "lastTimestamp": minutes(-59)});
    put_events(&cluster, "lately", 1, lately).await;
    // Restored from elsewhere a minute ago: it happened long ago, and stays an hour as upstream.
    let restored = json!({"creationTimestamp": minutes(-1), "lastTimestamp": hours(-1000)});
    put_events(&cluster, "restored", 1, restored).await;

    let expiry = Key::of("event-expiry", "", "").unwrap();
    while cluster.reconcile(expiry.clone()).await && cluster.due().contains(&expiry) {}
    let names = |cluster: &Cluster| -> Vec<String> {
        cluster.list::<Event>().iter().map(|event| event.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!(names(&cluster), ["lately-0", "restored-0"]);
    cluster.pass(Duration::from_secs(60));
    assert!(cluster.due().contains(&expiry), "the next ends a minute later");
    while cluster.reconcile(expiry.clone()).await {}
    assert_eq!(names(&cluster), ["restored-0"]);
}

#[tokio::test]
async fn a_service_account_takes_its_token_secrets_along() {
    let mut cluster = Cluster::new(&[]).await;
    let account = |name: &str| json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}});
    let secret = |name: &str, account: &str, kind: &str| {
        let annotations = json!({"kubernetes.io/service-account.name": account});
        json!({"kind": "Secret", "apiVersion": "v1", "type": kind,
            "metadata": {"name": name, "namespace": "default", "annotations": annotations}})
    };
    let token = "kubernetes.io/service-account-token";
    for name in ["a", "b"] {
        cluster.create(account(name)).await;
    }
    for (name, account, kind) in [
        ("a", "a", token),
        ("a2", "a", token),
        ("b", "b", token),
        ("plain", "a", "Opaque"),
        ("early", "c", token),
    ] {
        cluster.create(secret(name, account, kind)).await;
    }
    cluster.settle().await;
    cluster.delete("v1", "ServiceAccount", "default", "a", Delete::default()).await;
    cluster.create(account("a")).await;
    cluster.settle().await;
    let names: Vec<_> =
        cluster.list::<Secret>().iter().map(|secret| secret.metadata.name.clone().unwrap()).collect();
    assert_eq!(
        names,
        ["b", "early", "plain"],
        "those of the account that was deleted go, whatever comes after it"
    );
}
