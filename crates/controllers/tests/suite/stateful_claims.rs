//! The claims of StatefulSets: made, kept, and given to who takes them along.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use crate::stateful_sets::{change, names, stateful, staying};
use crate::volumes::class;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use objects::{Delete, LOCAL_PATH};
use serde_json::{Value, json};

fn templates() -> Value {
    json!([{
        "metadata": {"name": "data", "labels": {"tier": "disk"}, "annotations": {"a": "b"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "folders",
            "resources": {"requests": {"storage": "1Gi"}}},
    }])
}

async fn with_claims(cluster: &Cluster, replicas: i32, deleted: &str, scaled: &str) {
    class(cluster, "folders", LOCAL_PATH, "WaitForFirstConsumer", "Delete").await;
    let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
    stateful(
        cluster,
        json!({
            "replicas": replicas, "volumeClaimTemplates": templates(),
            "persistentVolumeClaimRetentionPolicy": policy,
        }),
    )
    .await;
}

/// The claims, each with the kinds and names of its owners.
fn claims(cluster: &Cluster) -> Vec<(String, Vec<String>)> {
    let claims = cluster.list::<PersistentVolumeClaim>();
    let owners = |claim: &PersistentVolumeClaim| {
        let owners = claim.metadata.owner_references.iter().flatten();
        owners.map(|owner| format!("{} {}", owner.kind, owner.name)).collect()
    };
    claims.iter().map(|claim| (claim.metadata.name.clone().unwrap(), owners(claim))).collect()
}

fn owned(all: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    all.iter()
        .map(|(name, owners)| ((*name).into(), owners.iter().map(|o| (*o).to_owned()).collect()))
        .collect()
}

#[tokio::test]
async fn each_pod_has_its_claims_and_its_replacement_takes_them_over() {
    let mut cluster = Cluster::new(&["n1"]).await;
    with_claims(&cluster, 2, "Retain", "Retain").await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), owned(&[("data-db-0", &[]), ("data-db-1", &[])]));
    let claim = &cluster.list::<PersistentVolumeClaim>()[0];
    let labels = claim.metadata.labels.as_ref().unwrap();
    assert_eq!((labels["tier"].as_str(), labels["app"].as_str()), ("disk", "db"));
    assert_eq!(claim.metadata.annotations.as_ref().unwrap()["a"], "b");
    let pods = staying(&cluster);
    let volume = &pods[1].spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    let source = volume.persistent_volume_claim.as_ref().unwrap();
    assert_eq!((volume.name.as_str(), source.claim_name.as_str()), ("data", "data-db-1"));
    assert_eq!(
        cluster.told("db", "SuccessfulCreate")[0],
        "create Claim data-db-0 Pod db-0 in StatefulSet db success"
    );

    let uid = claim.metadata.uid.clone();
    cluster.delete("v1", "Pod", "default", "db-0", Delete::default()).await;
    change(&cluster, json!({"replicas": 1})).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0"]);
    assert_eq!(claims(&cluster).len(), 2, "nothing that was written is deleted");
    assert_eq!(cluster.list::<PersistentVolumeClaim>()[0].metadata.uid, uid);
    cluster.delete("apps/v1", "StatefulSet", "default", "db", Delete::default()).await;
    cluster.settle().await;
    assert_eq!((names(&cluster).len(), claims(&cluster).len()), (0, 2));
}

#[tokio::test]
async fn claims_that_go_with_the_set_are_its_own() {
    let mut cluster = Cluster::new(&["n1"]).await;
    with_claims(&cluster, 2, "Delete", "Retain").await;
    cluster.settle().await;
    let of_set: &[&str] = &["StatefulSet db"];
    assert_eq!(claims(&cluster), owned(&[("data-db-0", of_set), ("data-db-1", of_set)]));
    change(&cluster, json!({"replicas": 1})).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), owned(&[("data-db-0", of_set), ("data-db-1", of_set)]));
    change(&cluster, json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}})).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster)[0].1, Vec::<String>::new(), "the policy may change");
    change(&cluster, json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}})).await;
    cluster.settle().await;
    cluster.delete("apps/v1", "StatefulSet", "default", "db", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), []);
}

#[tokio::test]
async fn claims_that_go_with_what_a_smaller_set_gives_up_are_the_pods() {
    let mut cluster = Cluster::new(&["n1"]).await;
    with_claims(&cluster, 2, "Retain", "Delete").await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), owned(&[("data-db-0", &[]), ("data-db-1", &[])]));
    cluster.silence("n1");
    change(&cluster, json!({"replicas": 1})).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), owned(&[("data-db-0", &[]), ("data-db-1", &["Pod db-1"])]));
    cluster.hear("n1").await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), owned(&[("data-db-0", &[])]));

    // What is about to go with the last pod of an ordinal is no claim for the next one.
    change(&cluster, json!({"replicas": 2})).await;
    cluster.settle().await;
    let uid = cluster.list::<PersistentVolumeClaim>()[1].metadata.uid.clone();
    change(&cluster, json!({"replicas": 1})).await;
    while cluster.list::<PersistentVolumeClaim>()[1].metadata.owner_references.is_none() {
        let key =
            cluster.due().into_iter().find(|key| format!("{key:?}").starts_with("statefulset")).unwrap();
        cluster.reconcile(key).await;
    }
    change(&cluster, json!({"replicas": 2})).await;
    cluster
        .delete("v1", "Pod", "default", "db-1", Delete { grace_seconds: Some(0), ..Delete::default() })
        .await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0", "db-1"]);
    assert_eq!(claims(&cluster), owned(&[("data-db-0", &[]), ("data-db-1", &[])]));
    assert_ne!(cluster.list::<PersistentVolumeClaim>()[1].metadata.uid, uid);
}

#[tokio::test]
async fn a_claim_that_is_being_deleted_is_waited_for() {
    let mut cluster = Cluster::new(&["n1"]).await;
    with_claims(&cluster, 1, "Retain", "Retain").await;
    cluster.settle().await;
    let hold = json!({"metadata": {"finalizers": ["test.io/held"]}});
    cluster.patch("v1", "PersistentVolumeClaim", "default", "data-db-0", "", hold).await.unwrap();
    cluster.delete("v1", "PersistentVolumeClaim", "default", "data-db-0", Delete::default()).await;
    cluster.delete("v1", "Pod", "default", "db-0", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), [""; 0]);
    let told = cluster.told("db", "FailedCreate");
    assert_eq!(told[0], "create Pod db-0 in StatefulSet db failed error: pvc data-db-0 is being deleted");
    let free = json!({"metadata": {"finalizers": null}});
    cluster.patch("v1", "PersistentVolumeClaim", "default", "data-db-0", "", free).await.unwrap();
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0"]);
}
