//! What a disruption budget allows, while pods come and go.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use objects::Delete;
use serde_json::{Value, json};

async fn budget(cluster: &Cluster, spec: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    cluster
        .create(json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1",
            "metadata": {"name": "b", "namespace": "default"}, "spec": spec}))
        .await;
}

fn status(cluster: &Cluster) -> PodDisruptionBudgetStatus {
    cluster.get::<PodDisruptionBudget>("default", "b").unwrap().status.unwrap()
}

/// Expected, desired and current pods, and how many may go.
fn numbers(cluster: &Cluster) -> [i32; 4] {
    let status = status(cluster);
    [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed]
        .map(Option::unwrap_or_default)
}

fn condition(cluster: &Cluster) -> (String, String) {
    let condition = status(cluster).conditions.unwrap().remove(0);
    assert_eq!(condition.type_, "DisruptionAllowed");
    (condition.status, condition.reason)
}

async fn pod(cluster: &mut Cluster, name: &str, owner: Option<Value>) {
    let mut metadata = json!({"name": name, "namespace": "default", "labels": {"app": "web"}});
    if let Some(owner) = owner {
        metadata["ownerReferences"] = json!([owner]);
    }
    let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "c"}]});
    cluster.create(json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})).await;
    cluster.start("default", name, true).await;
}

#[tokio::test]
async fn a_budget_says_how_many_pods_of_a_deployment_may_go() {
    for (spec, first, scaled) in [
        (json!({"minAvailable": 2}), [3, 2, 3, 1], [6, 2, 6, 4]),
        (json!({"minAvailable": "50%"}), [3, 2, 3, 1], [6, 3, 6, 3]),
        (json!({"maxUnavailable": 1}), [3, 2, 3, 1], [6, 5, 6, 1]),
        (json!({"maxUnavailable": "34%"}), [3, 1, 3, 2], [6, 3, 6, 3]),
        (json!({"maxUnavailable": 0}), [3, 3, 3, 0], [6, 6, 6, 0]),
        (json!({"minAvailable": "100%"}), [3, 3, 3, 0], [6, 6, 6, 0]),
        (json!({"minAvailable": 9}), [3, 9, 3, 0], [6, 9, 6, 0]),
    ] {
        let mut cluster = Cluster::new(&["n1", "n2"]).await;
        cluster.deploy("web", 3, json!({})).await;
        budget(&cluster, spec.clone()).await;
        cluster.settle().await;
        assert_eq!(numbers(&cluster), first, "{spec}");
        let may = if first[3] > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        assert_eq!(condition(&cluster), (may.0.to_owned(), may.1.to_owned()), "{spec}");
        let replicas = json!({"spec": {"replicas": 6}});
        cluster.patch("apps/v1", "Deployment", "default", "web", "", replicas).await.unwrap();
        cluster.settle().await;
        assert_eq!(numbers(&cluster), scaled, "{spec}");
    }
}

#[tokio::test]
async fn a_pod_that_serves_no_more_counts_no_more_and_a_change_of_the_budget_counts_at_once() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 3, json!({})).await;
    budget(&cluster, json!({"minAvailable": 2})).await;
    cluster.settle().await;
    let name = cluster.list::<Pod>()[0].metadata.name.clone().unwrap();
    cluster.start("default", &name, false).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [3, 2, 2, 0]);
    let spec = json!({"spec": {"minAvailable": 1}});
    cluster.patch("policy/v1", "PodDisruptionBudget", "default", "b", "", spec).await.unwrap();
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [3, 1, 2, 1]);
    let budget: PodDisruptionBudget = cluster.get("default", "b").unwrap();
    assert_eq!(budget.status.unwrap().observed_generation, budget.metadata.generation);
}

#[tokio::test]
async fn a_pod_whose_eviction_was_allowed_is_gone_until_it_ends_or_its_time_is_over() {
    let mut cluster = Cluster::new(&["n1"]).await;
    budget(&cluster, json!({"minAvailable": 1})).await;
    for name in ["a", "b", "c"] {
        pod(&mut cluster, name, None).await;
    }
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [3, 1, 3, 2], "a number needs no controller");
    let now = crate::cluster::wire(cluster.now.wall);
    let evicted = json!({"status": {"disruptionsAllowed": 0, "disruptedPods": {"a": now, "b": now}}});
    cluster.patch("policy/v1", "PodDisruptionBudget", "default", "b", "status", evicted).await.unwrap();
    let at_once = Delete { grace_seconds: Some(0), ..Delete::default() };
    cluster.delete("v1", "Pod", "default", "a", at_once).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [2, 1, 1, 0], "a is gone, b is as good as gone");
    assert_eq!(status(&cluster).disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["b"]);

    cluster.pass(Duration::from_secs(121));
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [2, 1, 2, 1], "nobody deleted b");
    assert_eq!(status(&cluster).disrupted_pods, None);
}

#[tokio::test]
async fn a_share_of_pods_without_a_known_number_lets_nobody_go() {
    let mut cluster = Cluster::new(&["n1"]).await;
    budget(&cluster, json!({"maxUnavailable": 1})).await;
    pod(&mut cluster, "alone", None).await;
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [0, 0, 1, 0], "it has no controller");
    let job = cluster
        .create(json!({"kind": "Job", "apiVersion": "batch/v1",
            "metadata": {"name": "j", "namespace": "default"},
            "spec": {"managedBy": "example.com/another", "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "c"}]}}}}))
        .await;
    let owner =
        json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job.uid(), "controller": true});
    pod(&mut cluster, "of-job", Some(owner)).await;
    cluster.settle().await;
    assert_eq!(condition(&cluster), ("False".to_owned(), "SyncFailed".to_owned()));
    assert_eq!(status(&cluster).disruptions_allowed, Some(0));
}

#[tokio::test]
async fn whatever_has_a_scale_says_how_many_pods_there_should_be() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}});
    cluster
        .create(json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "rings.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "versions": [version],
                "names": {"plural": "rings", "singular": "ring", "kind": "Ring", "listKind": "RingList"}}}))
        .await;
    let conditions = json!([{"type": "Established", "status": "True", "reason": "r", "message": "",
        "lastTransitionTime": crate::cluster::wire(cluster.now.wall)}]);
    let accepted = json!({"plural": "rings", "singular": "ring", "kind": "Ring", "listKind": "RingList"});
    let established =
        json!({"status": {"conditions": conditions, "acceptedNames": accepted, "storedVersions": ["v1"]}});
    let name = "rings.example.com";
    let definitions = "apiextensions.k8s.io/v1";
    cluster.patch(definitions, "CustomResourceDefinition", "", name, "status", established).await.unwrap();
    let ring = cluster
        .create(json!({"kind": "Ring", "apiVersion": "example.com/v1",
            "metadata": {"name": "r", "namespace": "default"}, "spec": {"size": 4}}))
        .await;
    budget(&cluster, json!({"maxUnavailable": "50%"})).await;
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Ring", "name": "r", "uid": ring.uid(), "controller": true});
    for name in ["a", "b", "c"] {
        pod(&mut cluster, name, Some(owner.clone())).await;
    }
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [4, 2, 3, 1]);
    let size = json!({"spec": {"size": 6}});
    cluster.patch("example.com/v1", "Ring", "default", "r", "", size).await.unwrap();
    cluster.settle().await;
    assert_eq!(numbers(&cluster), [6, 3, 3, 0], "as soon as it is known");
}

#[tokio::test]
async fn a_pod_that_nobody_made_go_is_not_about_to_go_any_more() {
    let mut cluster = Cluster::new(&["n1"]).await;
    pod(&mut cluster, "a", None).await;
    let mut target = cluster.condition("DisruptionTarget", "True");
    target["reason"] = "EvictionByEvictionAPI".into();
    let status = json!({"status": {"conditions": [target, cluster.condition("Ready", "True")]}});
    cluster.patch("v1", "Pod", "default", "a", "status", status).await.unwrap();
    let said = |cluster: &Cluster| {
        let conditions = cluster.get::<Pod>("default", "a").unwrap().status.unwrap().conditions.unwrap();
        conditions.into_iter().find(|c| c.type_ == "DisruptionTarget").unwrap().status
    };
    cluster.settle().await;
    assert_eq!(said(&cluster), "True");
    cluster.pass(Duration::from_secs(121));
    cluster.settle().await;
    assert_eq!(said(&cluster), "False");
}
