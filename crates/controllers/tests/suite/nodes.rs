//! Nodes: their conditions and taints, and what a zone that is disrupted keeps from being replaced.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{Node, Pod};
use membership::Tally;
use objects::Delete;
use serde_json::{Value, json};

/// The taints of a node, as `key:effect` without their common beginning.
fn taints(cluster: &Cluster, node: &str) -> Vec<String> {
    let node: Node = cluster.get("", node).unwrap();
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let text = |taint: &k8s_openapi::api::core::v1::Taint| {
        format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect)
    };
    taints.iter().map(text).collect()
}

async fn status(cluster: &Cluster, node: &str, conditions: Value) {
    let status = json!({"status": {"conditions": conditions}});
    cluster.patch("v1", "Node", "", node, "status", status).await.unwrap();
}

async fn pod(cluster: &Cluster, name: &str, node: &str, tolerations: Value) {
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c"}], "tolerations": tolerations},
        }))
        .await;
}

/// The names of pods that nobody has begun to delete.
fn staying(cluster: &Cluster) -> Vec<String> {
    let mut pods = cluster.list::<Pod>();
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.into_iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("n{n:02}")).collect()
}

async fn hosts(count: usize) -> Cluster {
    let names = names(0, count);
    Cluster::new(&names.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn tainted(cluster: &Cluster, count: usize) -> Vec<String> {
    let ends = |node: &String| taints(cluster, node).contains(&"unreachable:NoExecute".to_owned());
    names(0, count).into_iter().filter(ends).collect()
}

#[tokio::test]
async fn conditions_keep_new_pods_away() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    let of = |cluster: &Cluster, ready: &str, bad: &str| {
        json!([
            cluster.condition("Ready", ready),
            cluster.condition("MemoryPressure", bad),
            cluster.condition("DiskPressure", bad),
            cluster.condition("PIDPressure", bad),
            cluster.condition("NetworkUnavailable", bad),
        ])
    };
    let mine = json!([{"key": "mine", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/memory-pressure", "effect": "NoExecute"}]);
    cluster.patch("v1", "Node", "", "n1", "", json!({"spec": {"taints": mine}})).await.unwrap();
    status(&cluster, "n1", of(&cluster, "True", "True")).await;
    cluster.settle().await;
    let pressure = ["memory-pressure", "disk-pressure", "pid-pressure", "network-unavailable"];
    let mut wanted = vec!["mine:NoSchedule".to_owned(), "memory-pressure:NoExecute".to_owned()];
    wanted.extend(pressure.map(|kind| format!("{kind}:NoSchedule")));
    assert_eq!(taints(&cluster, "n1"), wanted);
    status(&cluster, "n1", of(&cluster, "False", "False")).await;
    cluster.settle().await;
    wanted.truncate(2);
    wanted.extend(["not-ready:NoSchedule".to_owned(), "not-ready:NoExecute".to_owned()]);
    assert_eq!(taints(&cluster, "n1"), wanted, "what others put there stays");
    status(&cluster, "n1", of(&cluster, "True", "Unknown")).await;
    cluster.settle().await;
    assert_eq!(taints(&cluster, "n1"), wanted[..2]);
}

#[tokio::test]
async fn pods_stay_for_a_while_where_the_node_says_that_it_is_not_ready() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    pod(&cluster, "bare", "n1", json!([])).await;
    pod(
        &cluster,
        "short",
        "n1",
        json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 10}]),
    )
    .await;
    cluster.settle().await;
    let unready = json!([cluster.condition("Ready", "False")]);
    status(&cluster, "n1", unready).await;
    cluster.settle().await;
    assert_eq!(staying(&cluster).len(), 4);
    cluster.pass(Duration::from_secs(12));
    cluster.settle().await;
    assert_eq!(staying(&cluster).len(), 3);
    assert_eq!(cluster.told("short", "TaintManagerEviction"), ["Marking for deletion Pod default/short"]);
    // The node's other condition is another taint, and the time begins anew; what is silent gets a spare at once.
    cluster.silence("n1");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let on_n2 = cluster
        .list::<Pod>()
        .into_iter()
        .filter(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n2"));
    assert_eq!(on_n2.count(), 2);
    assert_eq!(cluster.told("bare", "NodeNotReady"), ["Node is not ready"]);
    assert!(staying(&cluster).contains(&"bare".to_owned()), "nobody would make another one");
    cluster.pass(Duration::from_secs(290));
    cluster.settle().await;
    assert!(staying(&cluster).contains(&"bare".to_owned()));
    cluster.pass(Duration::from_secs(15));
    cluster.settle().await;
    assert!(!staying(&cluster).contains(&"bare".to_owned()), "it tolerates that for 300 s");
}

#[tokio::test]
async fn an_eviction_that_is_cancelled_is_told() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    for (name, seconds) in [("timed", json!(30)), ("ever", Value::Null)] {
        let mut toleration = json!({"key": "bad", "operator": "Exists"});
        toleration["tolerationSeconds"] = seconds;
        toleration["effect"] = "NoExecute".into();
        pod(&cluster, name, "n1", json!([toleration])).await;
    }
    cluster.settle().await;
    let bad = json!({"spec": {"taints": [{"key": "bad", "effect": "NoExecute"}]}});
    cluster.patch("v1", "Node", "", "n1", "", bad).await.unwrap();
    cluster.settle().await;
    cluster.patch("v1", "Node", "", "n1", "", json!({"spec": {"taints": null}})).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.told("timed", "TaintManagerEviction"), ["Cancelling deletion of Pod default/timed"]);
    assert_eq!(cluster.told("ever", "TaintManagerEviction"), [""; 0]);
    // The same for a silent host that is heard again: the API gave both of them 300 s.
    cluster.silence("n1");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    cluster.hear("n1").await;
    cluster.settle().await;
    assert_eq!(cluster.told("timed", "TaintManagerEviction").len(), 2);
    assert_eq!(cluster.told("ever", "TaintManagerEviction"), ["Cancelling deletion of Pod default/ever"]);
    assert_eq!(staying(&cluster), ["ever", "timed"]);
}

#[tokio::test]
async fn where_most_hosts_of_a_small_zone_are_silent_nothing_is_replaced() {
    let mut cluster = hosts(7).await;
    cluster.deploy("web", 7, json!({})).await;
    cluster.settle().await;
    for host in &names(0, 3) {
        cluster.silence(host);
    }
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 7), names(0, 3), "fewer than 55 % are no disruption");
    cluster.silence("n03");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 7), names(0, 3));
    assert_eq!(taints(&cluster, "n03"), ["unreachable:NoSchedule"]);
    assert_eq!(staying(&cluster).len(), 7);
    // One is back, and the zone is no longer disrupted.
    cluster.hear("n00").await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(6));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 7), names(1, 4));
}

#[tokio::test]
async fn all_that_fall_silent_together_count_before_they_are_marked() {
    let mut cluster = hosts(6).await;
    cluster.settle().await;
    for host in &names(0, 4) {
        cluster.silence(host);
    }
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 6), names(0, 0));
    for host in &names(4, 6) {
        cluster.silence(host);
    }
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 6), names(0, 0), "who hears nobody is cut off itself");
    // A zone of its own may be gone altogether.
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "other"}}});
    for host in &names(0, 4) {
        cluster.patch("v1", "Node", "", host, "", zone.clone()).await.unwrap();
    }
    for host in &names(4, 6) {
        cluster.hear(host).await;
    }
    cluster.pass(Duration::from_secs(6));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 6), names(0, 4));
}

#[tokio::test]
async fn in_a_large_zone_one_host_after_the_other_is_given_up() {
    let mut cluster = hosts(51).await;
    cluster.settle().await;
    for host in &names(0, 30) {
        cluster.silence(host);
    }
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(tainted(&cluster, 51), names(0, 1));
    for _ in 0..12 {
        cluster.pass(Duration::from_secs(6));
        cluster.settle().await;
    }
    assert_eq!(tainted(&cluster, 51), names(0, 1));
    for _ in 0..6 {
        cluster.pass(Duration::from_secs(6));
        cluster.settle().await;
    }
    assert_eq!(tainted(&cluster, 51), names(0, 2), "100 s later");
}

#[tokio::test]
async fn a_kubelet_lives_by_its_lease() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    for node in ["kubelet", "silent", "free"] {
        cluster.create(json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node}})).await;
    }
    let well = json!([cluster.condition("Ready", "True")]);
    for node in ["kubelet", "free"] {
        status(&cluster, node, well.clone()).await;
    }
    cluster.settle().await;
    assert_eq!(taints(&cluster, "silent"), ["not-ready:NoSchedule"]);
    for node in ["kubelet", "silent"] {
        cluster.leases.insert(node.to_owned(), cluster.now.instant);
        cluster.look_at(node);
    }
    cluster.pass(Duration::from_secs(49));
    cluster.settle().await;
    assert_eq!(taints(&cluster, "kubelet"), [""; 0]);
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert_eq!(taints(&cluster, "kubelet"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(taints(&cluster, "silent"), ["not-ready:NoSchedule"], "one that starts has a minute");
    cluster.pass(Duration::from_secs(10));
    cluster.settle().await;
    let node: Node = cluster.get("", "silent").unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    let said: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap())).collect();
    let never = "NodeStatusNeverUpdated";
    assert_eq!(
        said,
        [("Ready", never), ("MemoryPressure", never), ("DiskPressure", never), ("PIDPressure", never)]
    );
    assert_eq!(taints(&cluster, "free"), [""; 0], "it has promised nothing");
    // And it is back.
    cluster.leases.insert("kubelet".to_owned(), cluster.now.instant);
    status(&cluster, "kubelet", well).await;
    cluster.settle().await;
    assert_eq!(taints(&cluster, "kubelet"), [""; 0]);
    cluster.delete("v1", "Node", "", "kubelet", Delete::default()).await;
    cluster.settle().await;
}

#[tokio::test]
async fn nodes_that_come_and_go_are_told_once() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.settle().await;
    let registered = || vec!["Node n1 event: Registered Node n1 in Controller".to_owned()];
    assert_eq!(cluster.told("n1", "RegisteredNode"), registered());
    let first = cluster.get::<Node>("", "n1").unwrap().metadata.uid;
    cluster.patch("v1", "Node", "", "n1", "", json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.told("n1", "RegisteredNode"), registered(), "the same Node");

    cluster.delete("v1", "Node", "", "n1", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(cluster.told("n1", "RemovingNode"), ["Node n1 event: Removing Node n1 from Controller"]);
    let gone = cluster.told.iter().find(|told| told.reason == "RemovingNode").unwrap();
    assert_eq!(gone.regarding.uid, first, "its Events are found by the Node that it was");

    cluster.join("n1").await;
    cluster.settle().await;
    assert_eq!(cluster.told("n1", "RegisteredNode").len(), 2);
    assert_eq!(cluster.told("n1", "RemovingNode").len(), 1);
}

/// A link that is down and up for this many milliseconds, ten times: whether the host on it was Ready all along, and which pods there were.
async fn flapping(down: u64, up: u64) -> (bool, BTreeSet<String>, BTreeSet<String>) {
    const INTERVAL: u64 = 50;
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", 3, json!({})).await;
    cluster.settle().await;
    let pods = |cluster: &Cluster| -> BTreeSet<String> {
        cluster.list::<Pod>().iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
    };
    let before = pods(&cluster);
    let mut tally = Tally::new(["n2".to_owned()], Duration::from_millis(250), cluster.now.instant);
    let mut is_ready = true;
    for beat in 1..=10 * (down + up) / INTERVAL {
        cluster.pass(Duration::from_millis(INTERVAL));
        let now = cluster.now.instant;
        if beat * INTERVAL % (down + up) >= down {
            tally.beat("n2", 1, beat, now).unwrap();
        }
        tally.check(now);
        let silence = tally.hosts().silence();
        if silence != cluster.silence {
            cluster.silence = silence;
            cluster.look_at("n2");
        }
        cluster.settle().await;
        let node: Node = cluster.get("", "n2").unwrap();
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        is_ready &= conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    }
    (is_ready, before, pods(&cluster))
}

/// The law that nothing is replaced without need.
#[tokio::test]
async fn a_link_that_comes_back_before_its_host_is_given_up_costs_no_pod_however_often_it_goes() {
    for (down, up) in [(500, 500), (1_000, 50), (250, 50), (900, 300)] {
        let (is_ready, before, after) = flapping(down, up).await;
        assert!(is_ready, "down for {down} ms, up for {up} ms");
        assert_eq!(before, after, "down for {down} ms, up for {up} ms");
        assert_eq!(before.len(), 3);
    }
    let (is_ready, before, after) = flapping(1_500, 500).await;
    assert!(!is_ready && before != after, "one that is down for longer does");
}
