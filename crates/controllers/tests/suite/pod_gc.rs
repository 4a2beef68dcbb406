//! Pods that nobody will ever end are removed, and so are too many that have ended.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use controllers::Key;
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use serde_json::{Value, json};

fn pod(name: &str, node: Value) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "finalizers": ["test.io/held"]},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c"}]},
    })
}

/// What is said of a pod in the end: its phase, and why it was about to go.
fn last_word(cluster: &Cluster, name: &str) -> (String, Option<(String, String)>) {
    let pod: Pod = cluster.get("default", name).unwrap();
    let status = pod.status.unwrap();
    let target = status.conditions.into_iter().flatten().find(|c| c.type_ == "DisruptionTarget");
    (status.phase.unwrap(), target.map(|c| (c.reason.unwrap(), c.message.unwrap())))
}

async fn release(cluster: &mut Cluster, name: &str) {
    let free = json!({"metadata": {"finalizers": null}});
    cluster.patch("v1", "Pod", "default", name, "", free).await.unwrap();
    cluster.settle().await;
    assert!(cluster.get::<Pod>("default", name).is_none());
}

#[tokio::test]
async fn a_pod_whose_node_is_gone_has_failed() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.create(pod("orphan", "n2".into())).await;
    cluster.settle().await;
    cluster.silence("n2");
    cluster.delete("v1", "Node", "", "n2", Delete::default()).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(39));
    cluster.settle().await;
    assert_eq!(last_word(&cluster, "orphan"), ("Running".into(), None));
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let why = ("DeletionByPodGC".to_owned(), "PodGC: node no longer exists".to_owned());
    assert_eq!(last_word(&cluster, "orphan"), ("Failed".into(), Some(why)));
    release(&mut cluster, "orphan").await;
}

#[tokio::test]
async fn a_pod_that_never_had_a_node_ends_without_one() {
    let mut cluster = Cluster::new(&[]).await;
    cluster.create(pod("waiting", Value::Null)).await;
    cluster.settle().await;
    cluster.delete("v1", "Pod", "default", "waiting", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(last_word(&cluster, "waiting"), ("Failed".into(), None));
    release(&mut cluster, "waiting").await;
}

#[tokio::test]
async fn the_oldest_that_have_ended_go_once_they_are_too_many() {
    let mut cluster = Cluster::new(&["n1"]).await;
    for n in 0..12_503 {
        let name = format!("p{n:05}");
        // The last ones are the oldest.
        let made = cluster.now.wall - Duration::from_secs(3600 + n);
        let pod = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "uid": format!("u{n}"), "creationTimestamp": crate::cluster::wire(made)},
            "spec": {"containers": []}, "status": {"phase": "Succeeded"}});
        cluster.store_raw("", "pods", &name, pod).await;
    }
    cluster.take_over();
    let key = Key::of("ended-pods", "", "").unwrap();
    assert!(cluster.reconcile(key.clone()).await);
    assert_eq!(cluster.list::<Pod>().len(), 12_500);
    assert!(cluster.get::<Pod>("default", "p12500").is_none());
    assert!(cluster.get::<Pod>("default", "p12499").is_some());
    assert!(!cluster.reconcile(key).await, "the rest is kept");
}
