//! DaemonSets: one pod on every host that is meant.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use serde_json::{Value, json};

const HASH: &str = "controller-revision-hash";

/// A DaemonSet whose pods have this spec beside their container.
pub async fn daemons(cluster: &Cluster, strategy: Value, spec: Value) {
    let mut pod = spec;
    pod["containers"] = json!([{"name": "agent", "image": "agent:1"}]);
    cluster
        .create(json!({
            "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": "agent", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "updateStrategy": strategy,
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod},
            },
        }))
        .await;
}

pub async fn set_image(cluster: &Cluster, image: &str) {
    let containers = json!([{"name": "agent", "image": image}]);
    change(cluster, json!({"template": {"spec": {"containers": containers}}})).await;
}

async fn change(cluster: &Cluster, spec: Value) {
    cluster.patch("apps/v1", "DaemonSet", "default", "agent", "", json!({"spec": spec})).await.unwrap();
}

/// The pods that nobody is deleting, by their host, with their image.
pub fn by_host(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let mut hosts = BTreeMap::<String, Vec<String>>::new();
    for pod in staying(cluster) {
        let spec = pod.spec.as_ref().unwrap();
        let image = spec.containers[0].image.clone().unwrap();
        hosts.entry(spec.node_name.clone().unwrap_or_default()).or_default().push(image);
    }
    hosts
}

fn staying(cluster: &Cluster) -> Vec<Arc<Pod>> {
    let mut pods = cluster.list::<Pod>();
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods
}

fn status(cluster: &Cluster) -> DaemonSetStatus {
    cluster.get::<DaemonSet>("default", "agent").unwrap().status.unwrap()
}

fn hosts(cluster: &Cluster) -> Vec<String> {
    by_host(cluster).into_keys().collect()
}

/// The numbers of the revisions, each with the image in its template.
fn revisions(cluster: &Cluster) -> BTreeMap<i64, String> {
    let image = |revision: &ControllerRevision| {
        let data = revision.data.as_ref().unwrap();
        data.0.pointer("/spec/template/spec/containers/0/image").unwrap().as_str().unwrap().to_owned()
    };
    cluster.list::<ControllerRevision>().iter().map(|revision| (revision.revision, image(revision))).collect()
}

#[tokio::test]
async fn every_host_has_its_pod_while_hosts_come_and_go() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1", "n2"]);
    assert_eq!(cluster.told("agent", "SuccessfulCreate").len(), 2);
    let pods = staying(&cluster);
    let spec = pods[0].spec.as_ref().unwrap();
    let borne: Vec<_> =
        spec.tolerations.iter().flatten().filter_map(|toleration| toleration.key.clone()).collect();
    for key in
        ["not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"]
    {
        assert!(borne.contains(&format!("node.kubernetes.io/{key}")), "{borne:?}");
    }
    let affinity = json!(spec.affinity);
    let field = affinity.pointer(
        "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0",
    );
    let named = json!({"key": "metadata.name", "operator": "In", "values": [spec.node_name]});
    assert_eq!(field, Some(&named));
    assert_eq!(pods[0].metadata.labels.as_ref().unwrap()["pod-template-generation"], "1");

    cluster.join("n3").await;
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1", "n2", "n3"]);
    let DaemonSetStatus { desired_number_scheduled, current_number_scheduled, number_ready, .. } =
        status(&cluster);
    assert_eq!((desired_number_scheduled, current_number_scheduled, number_ready), (3, 3, 3));
    assert_eq!(status(&cluster).number_available, Some(3));
    assert_eq!(status(&cluster).number_unavailable, None);

    cluster.delete("v1", "Node", "", "n2", Delete::default()).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(41));
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1", "n3"]);
    assert_eq!(status(&cluster).desired_number_scheduled, 2);
}

#[tokio::test]
async fn a_pod_that_found_no_host_goes_with_the_host() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    let full = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "0"}}});
    cluster.patch("v1", "Node", "", "n2", "status", full).await.unwrap();
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["", "n1"], "one waits for its host");
    cluster.delete("v1", "Node", "", "n2", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1"]);
}

#[tokio::test]
async fn labels_and_taints_say_which_hosts_are_meant() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "mine", "effect": effect}]}});
    cluster.patch("v1", "Node", "", "n3", "", taint("NoSchedule")).await.unwrap();
    daemons(&cluster, json!({}), json!({"nodeSelector": {"disk": "ssd"}})).await;
    let ssd = json!({"metadata": {"labels": {"disk": "ssd"}}});
    for host in ["n1", "n3"] {
        cluster.patch("v1", "Node", "", host, "", ssd.clone()).await.unwrap();
    }
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1"]);
    // A taint that keeps others away ends nobody, and one that evicts does.
    cluster.patch("v1", "Node", "", "n1", "", taint("NoSchedule")).await.unwrap();
    cluster.settle().await;
    assert_eq!((hosts(&cluster), status(&cluster).number_misscheduled), (vec!["n1".to_owned()], 1));
    cluster.patch("v1", "Node", "", "n1", "", taint("NoExecute")).await.unwrap();
    cluster.settle().await;
    assert_eq!((hosts(&cluster), status(&cluster).number_misscheduled), (vec![], 0));
    for host in ["n1", "n3"] {
        cluster.patch("v1", "Node", "", host, "", json!({"spec": {"taints": null}})).await.unwrap();
    }
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1", "n3"]);
    let no_longer = json!({"metadata": {"labels": {"disk": null}}});
    cluster.patch("v1", "Node", "", "n3", "", no_longer).await.unwrap();
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1"]);
}

#[tokio::test]
async fn a_host_that_only_says_that_it_is_well_makes_nothing_due() {
    let mut cluster = Cluster::new(&["n1"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    let well = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Again"}]}});
    cluster.patch("v1", "Node", "", "n1", "status", well).await.unwrap();
    let due = format!("{:?}", cluster.due());
    assert!(due.contains("node n1") && !due.contains("daemonset"), "{due}");
}

#[tokio::test]
async fn pods_of_a_silent_host_stay() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    cluster.silence("n2");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    cluster.pass(Duration::from_secs(600));
    cluster.settle().await;
    assert_eq!(hosts(&cluster), ["n1", "n2"]);
    assert_eq!(status(&cluster).number_ready, 1);
}

#[tokio::test]
async fn what_failed_is_made_again_and_waits_longer_each_time() {
    let mut cluster = Cluster::new(&["n1"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    let fail = async |cluster: &mut Cluster| {
        let name = staying(cluster)[0].metadata.name.clone().unwrap();
        let failed = json!({"status": {"phase": "Failed", "reason": "Evicted"}});
        cluster.patch("v1", "Pod", "default", &name, "status", failed).await.unwrap();
        cluster.serving = false;
        cluster.settle().await;
        cluster.serving = true;
        let there = staying(cluster)[0].metadata.name.clone().unwrap() == name;
        cluster.settle().await;
        there
    };
    assert!(!fail(&mut cluster).await, "the first is replaced at once");
    assert_eq!(cluster.told("agent", "FailedDaemonPod").len(), 1);
    assert!(fail(&mut cluster).await);
    cluster.pass(Duration::from_millis(2100));
    cluster.settle().await;
    assert_eq!(cluster.told("agent", "FailedDaemonPod").len(), 2);
    assert_eq!(status(&cluster).number_ready, 1);

    let name = staying(&cluster)[0].metadata.name.clone().unwrap();
    let ended = json!({"status": {"phase": "Succeeded"}});
    cluster.patch("v1", "Pod", "default", &name, "status", ended).await.unwrap();
    cluster.settle().await;
    assert_ne!(staying(&cluster)[0].metadata.name.as_ref(), Some(&name));
    assert_eq!(cluster.told("agent", "SucceededDaemonPod").len(), 1);
}

#[tokio::test]
async fn templates_are_remembered_as_revisions_and_come_back() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    let first = cluster.list::<ControllerRevision>();
    let labels = first[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels["app"], "agent");
    assert_eq!(first[0].metadata.name, Some(format!("agent-{}", labels[HASH])));
    assert_eq!(first[0].data.as_ref().unwrap().0.pointer("/spec/template/$patch"), Some(&json!("replace")));
    let on_pods = |cluster: &Cluster| staying(cluster)[0].metadata.labels.as_ref().unwrap()[HASH].clone();
    assert_eq!(on_pods(&cluster), labels[HASH]);

    set_image(&cluster, "agent:2").await;
    cluster.settle().await;
    assert_eq!(by_host(&cluster)["n2"], ["agent:2"]);
    assert_eq!(revisions(&cluster), BTreeMap::from([(1, "agent:1".into()), (2, "agent:2".into())]));
    assert_eq!(status(&cluster).updated_number_scheduled, Some(2));
    set_image(&cluster, "agent:1").await;
    cluster.settle().await;
    assert_eq!(revisions(&cluster), BTreeMap::from([(2, "agent:2".into()), (3, "agent:1".into())]));
    assert_eq!(
        (on_pods(&cluster), by_host(&cluster)["n1"].clone()),
        (labels[HASH].clone(), vec!["agent:1".into()])
    );

    change(&cluster, json!({"revisionHistoryLimit": 1})).await;
    set_image(&cluster, "agent:4").await;
    cluster.settle().await;
    assert_eq!(revisions(&cluster), BTreeMap::from([(3, "agent:1".into()), (4, "agent:4".into())]));
}

#[tokio::test]
async fn the_name_of_anothers_revision_is_left_alone() {
    let mut cluster = Cluster::new(&["n1"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    let name = cluster.list::<ControllerRevision>()[0].metadata.name.clone().unwrap();
    let orphan = Delete { propagation: Some(objects::Propagation::Orphan), ..Delete::default() };
    cluster.delete("apps/v1", "DaemonSet", "default", "agent", orphan).await;
    cluster.delete("apps/v1", "ControllerRevision", "default", &name, Delete::default()).await;
    cluster
        .create(json!({
            "kind": "ControllerRevision", "apiVersion": "apps/v1", "revision": 1, "data": {"other": "data"},
            "metadata": {"name": name, "namespace": "default"},
        }))
        .await;
    cluster.settle().await;
    daemons(&cluster, json!({}), json!({})).await;
    cluster.settle().await;
    assert_eq!(status(&cluster).collision_count, Some(1));
    assert_eq!(cluster.list::<ControllerRevision>().len(), 2);
    assert_eq!(hosts(&cluster), ["n1"], "the orphan was adopted");
    set_image(&cluster, "agent:2").await;
    cluster.settle().await;
    set_image(&cluster, "agent:1").await;
    cluster.settle().await;
    let pods = staying(&cluster);
    assert_ne!(format!("agent-{}", pods[0].metadata.labels.as_ref().unwrap()[HASH]), name);
}

#[tokio::test]
async fn on_delete_waits_for_somebody_to_delete() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    daemons(&cluster, json!({"type": "OnDelete"}), json!({})).await;
    cluster.settle().await;
    set_image(&cluster, "agent:2").await;
    cluster.settle().await;
    assert_eq!(by_host(&cluster)["n1"], ["agent:1"]);
    let name = staying(&cluster)
        .into_iter()
        .find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n1"));
    cluster
        .delete("v1", "Pod", "default", &name.unwrap().metadata.name.clone().unwrap(), Delete::default())
        .await;
    cluster.settle().await;
    assert_eq!(by_host(&cluster)["n1"], ["agent:2"]);
    assert_eq!(by_host(&cluster)["n2"], ["agent:1"]);
    assert_eq!(status(&cluster).updated_number_scheduled, Some(1));
}

#[tokio::test]
async fn a_pod_counts_once_it_has_served_for_long_enough() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    daemons(&cluster, json!({}), json!({})).await;
    change(&cluster, json!({"minReadySeconds": 10})).await;
    cluster.settle().await;
    assert_eq!((status(&cluster).number_ready, status(&cluster).number_available), (2, None));
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    assert_eq!(status(&cluster).number_available, Some(2));
    set_image(&cluster, "agent:2").await;
    cluster.settle().await;
    let images: Vec<_> = by_host(&cluster).into_values().flatten().collect();
    assert_eq!(images.iter().filter(|image| *image == "agent:2").count(), 1, "the other waits: {images:?}");
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    assert!(by_host(&cluster).into_values().flatten().all(|image| image == "agent:2"));
}
