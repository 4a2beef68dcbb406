//! Taints with the effect NoExecute evict.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{Node, Pod};
use objects::Delete;
use serde_json::{Value, json};

async fn pod(cluster: &Cluster, name: &str, tolerations: Value) {
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "c"}], "tolerations": tolerations},
        }))
        .await;
}

async fn taint(cluster: &Cluster, taints: Value) {
    cluster.patch("v1", "Node", "", "n1", "", json!({"spec": {"taints": taints}})).await.unwrap();
}

fn names(cluster: &Cluster) -> Vec<String> {
    let mut pods = cluster.list::<Pod>();
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.into_iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}

fn bad() -> Value {
    json!([{"key": "bad", "value": "1", "effect": "NoExecute"}])
}

fn for_seconds(key: &str, seconds: Option<i64>) -> Value {
    let mut toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
    if let Some(seconds) = seconds {
        toleration["tolerationSeconds"] = seconds.into();
    }
    toleration
}

#[tokio::test]
async fn a_taint_evicts_pods_that_do_not_tolerate_it_and_says_so() {
    let mut cluster = Cluster::new(&["n1"]).await;
    pod(&cluster, "bare", json!([])).await;
    pod(&cluster, "other", json!([for_seconds("good", None)])).await;
    pod(&cluster, "value", json!([{"key": "bad", "value": "2", "effect": "NoExecute"}])).await;
    pod(&cluster, "same", json!([{"key": "bad", "value": "1", "effect": "NoExecute"}])).await;
    pod(&cluster, "all", json!([{"operator": "Exists"}])).await;
    pod(&cluster, "never", json!([for_seconds("bad", Some(0))])).await;
    cluster.settle().await;
    taint(&cluster, json!([{"key": "bad", "value": "1", "effect": "NoSchedule"}])).await;
    cluster.settle().await;
    assert_eq!(names(&cluster).len(), 6, "a taint that keeps others away ends nobody");

    // Hosts that run nothing more end nothing either: what is deleted stays to be looked at.
    cluster.silence("n1");
    taint(&cluster, bad()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["all", "same"]);
    let bare: Pod = cluster.get("default", "bare").unwrap();
    let conditions = bare.status.unwrap().conditions.unwrap();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").unwrap();
    assert_eq!(
        (target.status.as_str(), target.reason.as_deref(), target.message.as_deref()),
        ("True", Some("DeletionByTaintManager"), Some("Taint manager: deleting due to NoExecute taint"))
    );
    assert_eq!(cluster.told("bare", "TaintManagerEviction"), ["Marking for deletion Pod default/bare"]);
    let node: Node = cluster.get("", "n1").unwrap();
    assert_eq!(node.spec.unwrap().taints.unwrap()[0].time_added, None, "nobody counts");
}

#[tokio::test]
async fn a_pod_stays_for_as_long_as_it_tolerates_every_taint() {
    let mut cluster = Cluster::new(&["n1"]).await;
    pod(&cluster, "four", json!([for_seconds("bad", Some(4))])).await;
    pod(&cluster, "nine", json!([for_seconds("bad", Some(9)), for_seconds("worse", Some(20))])).await;
    pod(&cluster, "ever", json!([for_seconds("bad", None), for_seconds("worse", None)])).await;
    cluster.settle().await;
    let both = json!([{"key": "bad", "effect": "NoExecute"}, {"key": "worse", "effect": "NoExecute"}]);
    taint(&cluster, bad()).await;
    cluster.settle().await;
    let node: Node = cluster.get("", "n1").unwrap();
    assert!(node.spec.unwrap().taints.unwrap()[0].time_added.is_some(), "another leader knows it too");
    cluster.pass(Duration::from_millis(3900));
    cluster.settle().await;
    assert_eq!(names(&cluster), ["ever", "four", "nine"]);
    cluster.pass(Duration::from_millis(1200));
    cluster.settle().await;
    assert_eq!(names(&cluster), ["ever", "nine"]);
    taint(&cluster, both).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    assert_eq!(names(&cluster), ["ever"], "the shorter of two times counts");

    // A pod that is placed there in spite of the taint has its own time.
    cluster.pass(Duration::from_secs(3600));
    pod(&cluster, "late", json!([for_seconds("bad", Some(30)), for_seconds("worse", None)])).await;
    let placed = json!({"status": {"conditions": [cluster.condition("PodScheduled", "True")]}});
    cluster.patch("v1", "Pod", "default", "late", "status", placed).await.unwrap();
    cluster.silence("n1");
    cluster.settle().await;
    assert_eq!(names(&cluster), ["ever", "late"]);
}

#[tokio::test]
async fn a_taint_that_is_taken_away_in_time_evicts_nobody() {
    let mut cluster = Cluster::new(&["n1"]).await;
    pod(&cluster, "four", json!([for_seconds("bad", Some(4))])).await;
    cluster.settle().await;
    for _ in 0..2 {
        taint(&cluster, bad()).await;
        cluster.settle().await;
        cluster.pass(Duration::from_secs(3));
        taint(&cluster, Value::Null).await;
        cluster.settle().await;
    }
    cluster.pass(Duration::from_secs(30));
    cluster.settle().await;
    assert_eq!(names(&cluster), ["four"]);
}

#[tokio::test]
async fn what_is_evicted_is_replaced_elsewhere() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    taint(&cluster, bad()).await;
    cluster.settle().await;
    let pods = cluster.list::<Pod>();
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n2")));
    cluster.delete("v1", "Pod", "default", pods[0].metadata.name.as_ref().unwrap(), Delete::default()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster).len(), 2);
}

#[tokio::test]
async fn pods_of_a_host_that_is_switched_off_for_good_are_forgotten() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    pod(&cluster, "bare", json!([])).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    cluster.silence("n1");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let all = cluster.list::<Pod>();
    assert_eq!(all.len(), 4, "the bare one stays, and the replaced one waits for its host's word: {all:?}");
    let node: Node = cluster.get("", "n1").unwrap();
    let mut taints = json!(node.spec.unwrap().taints.unwrap());
    let out = "node.kubernetes.io/out-of-service";
    taints.as_array_mut().unwrap().push(json!({"key": out, "value": "nodeshutdown", "effect": "NoExecute"}));
    taint(&cluster, taints).await;
    cluster.settle().await;
    let left = cluster.list::<Pod>();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n2")));
}
