//! StatefulSets: in which order their pods come, go and are updated.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use serde_json::{Value, json};

/// A StatefulSet called `db` with what its spec says beside selector and template.
pub async fn stateful(cluster: &Cluster, spec: Value) {
    let mut all = json!({
        "selector": {"matchLabels": {"app": "db"}}, "serviceName": "dbs",
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "db", "image": "db:1"}]},
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    cluster
        .create(json!({
            "kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": {"name": "db", "namespace": "default"},
            "spec": all,
        }))
        .await;
}

pub async fn change(cluster: &Cluster, spec: Value) {
    cluster.patch("apps/v1", "StatefulSet", "default", "db", "", json!({"spec": spec})).await.unwrap();
}

pub async fn set_image(cluster: &Cluster, image: &str) {
    let containers = json!([{"name": "db", "image": image}]);
    change(cluster, json!({"template": {"spec": {"containers": containers}}})).await;
}

pub fn staying(cluster: &Cluster) -> Vec<Arc<Pod>> {
    let mut pods = cluster.list::<Pod>();
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods
}

/// The pods that nobody is deleting, with their images.
pub fn images(cluster: &Cluster) -> Vec<(String, String)> {
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    staying(cluster).iter().map(|pod| (pod.metadata.name.clone().unwrap(), image(pod))).collect()
}

pub fn names(cluster: &Cluster) -> Vec<String> {
    images(cluster).into_iter().map(|(name, _)| name).collect()
}

fn status(cluster: &Cluster) -> StatefulSetStatus {
    cluster.get::<StatefulSet>("default", "db").unwrap().status.unwrap()
}

/// Lets everybody work while no host makes a pod ready by itself.
async fn settle_unready(cluster: &mut Cluster) {
    cluster.serving = false;
    cluster.settle().await;
    cluster.serving = true;
}

async fn serve(cluster: &mut Cluster, name: &str, ready: bool) {
    cluster.start("default", name, ready).await;
    settle_unready(cluster).await;
}

#[tokio::test]
async fn pods_come_one_after_the_other_with_names_of_their_own() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    stateful(&cluster, json!({"replicas": 3})).await;
    settle_unready(&mut cluster).await;
    assert_eq!(names(&cluster), ["db-0"]);
    serve(&mut cluster, "db-0", false).await;
    assert_eq!(names(&cluster), ["db-0"], "one that doesn't serve is waited for");
    serve(&mut cluster, "db-0", true).await;
    assert_eq!(names(&cluster), ["db-0", "db-1"]);
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0", "db-1", "db-2"]);
    assert_eq!(
        cluster.told("db", "SuccessfulCreate"),
        [0, 1, 2].map(|n| format!("create Pod db-{n} in StatefulSet db successful"))
    );
    let pods = staying(&cluster);
    let (pod, labels) = (pods[2].spec.as_ref().unwrap(), pods[2].metadata.labels.as_ref().unwrap());
    assert_eq!((pod.hostname.as_deref(), pod.subdomain.as_deref()), (Some("db-2"), Some("dbs")));
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-2");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "2");
    let revisions = cluster.list::<ControllerRevision>();
    let name = revisions[0].metadata.name.clone();
    let hash = &revisions[0].metadata.labels.as_ref().unwrap()["controller.kubernetes.io/hash"];
    assert_eq!(name, Some(format!("db-{hash}")));
    assert_eq!(Some(&labels["controller-revision-hash"]), name.as_ref());
    let status = status(&cluster);
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (3, Some(3), Some(3)));
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(3), Some(3)));
    assert_eq!((&status.current_revision, &status.update_revision), (&name, &name));
    assert_eq!((status.collision_count, status.observed_generation), (Some(0), Some(1)));
}

#[tokio::test]
async fn pods_go_the_highest_first_and_wait_for_each_other() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 3})).await;
    cluster.settle().await;
    cluster.silence("n1");
    cluster.settle().await;
    change(&cluster, json!({"replicas": 1})).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0", "db-1"], "the host hasn't said that db-2 ended");
    cluster.hear("n1").await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0"]);
    assert_eq!(
        cluster.told("db", "SuccessfulDelete"),
        [2, 1].map(|n| format!("delete Pod db-{n} in StatefulSet db successful"))
    );

    change(&cluster, json!({"replicas": 3})).await;
    cluster.settle().await;
    serve(&mut cluster, "db-0", false).await;
    change(&cluster, json!({"replicas": 2})).await;
    settle_unready(&mut cluster).await;
    assert_eq!(names(&cluster), ["db-0", "db-1", "db-2"], "db-0 is needed first");
    serve(&mut cluster, "db-0", true).await;
    assert_eq!(names(&cluster), ["db-0", "db-1"]);
}

#[tokio::test]
async fn parallel_pods_wait_for_nobody() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 3, "podManagementPolicy": "Parallel", "ordinals": {"start": 5}}))
        .await;
    settle_unready(&mut cluster).await;
    assert_eq!(names(&cluster), ["db-5", "db-6", "db-7"]);
    change(&cluster, json!({"replicas": 1, "ordinals": {"start": 6}})).await;
    settle_unready(&mut cluster).await;
    assert_eq!(names(&cluster), ["db-6"]);
}

#[tokio::test]
async fn an_update_goes_from_the_highest_to_the_lowest_and_waits_for_each() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 3})).await;
    cluster.settle().await;
    let before = status(&cluster).current_revision;
    set_image(&cluster, "db:2").await;
    settle_unready(&mut cluster).await;
    let of = |images: [&str; 3]| -> Vec<(String, String)> {
        images.iter().enumerate().map(|(n, image)| (format!("db-{n}"), (*image).to_owned())).collect()
    };
    assert_eq!(images(&cluster), of(["db:1", "db:1", "db:2"]));
    let during = status(&cluster);
    assert_eq!((during.current_replicas, during.updated_replicas), (Some(2), Some(1)));
    assert_eq!(during.current_revision, before);
    assert_ne!(during.update_revision, before);
    serve(&mut cluster, "db-2", true).await;
    assert_eq!(images(&cluster), of(["db:1", "db:2", "db:2"]));
    cluster.settle().await;
    assert_eq!(images(&cluster), of(["db:2", "db:2", "db:2"]));
    let after = status(&cluster);
    assert_eq!((&after.current_revision, after.current_replicas), (&during.update_revision, Some(3)));

    // And back: the revision is the one that it was.
    set_image(&cluster, "db:1").await;
    cluster.settle().await;
    assert_eq!(status(&cluster).current_revision, before);
    let numbers: Vec<_> =
        cluster.list::<ControllerRevision>().iter().map(|revision| revision.revision).collect();
    assert_eq!(numbers.iter().sum::<i64>(), 5, "2 and 3: {numbers:?}");
}

#[tokio::test]
async fn a_partition_holds_the_lower_ones_back() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let strategy = |partition: i32| json!({"rollingUpdate": {"partition": partition}});
    stateful(&cluster, json!({"replicas": 3, "updateStrategy": strategy(2)})).await;
    cluster.settle().await;
    set_image(&cluster, "db:2").await;
    cluster.settle().await;
    let of = |cluster: &Cluster| -> BTreeMap<String, String> { images(cluster).into_iter().collect() };
    let is = |images: [&str; 3]| -> BTreeMap<String, String> {
        images.iter().enumerate().map(|(n, image)| (format!("db-{n}"), (*image).to_owned())).collect()
    };
    assert_eq!(of(&cluster), is(["db:1", "db:1", "db:2"]));
    cluster.delete("v1", "Pod", "default", "db-0", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(of(&cluster), is(["db:1", "db:1", "db:2"]), "a new one is of the revision that it had");
    assert_ne!(status(&cluster).current_revision, status(&cluster).update_revision);
    change(&cluster, json!({"updateStrategy": strategy(0)})).await;
    cluster.settle().await;
    assert_eq!(of(&cluster), is(["db:2", "db:2", "db:2"]));
    assert_eq!(status(&cluster).current_revision, status(&cluster).update_revision);
}

#[tokio::test]
async fn an_update_goes_past_pods_that_never_served() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 2, "podManagementPolicy": "Parallel"})).await;
    settle_unready(&mut cluster).await;
    set_image(&cluster, "db:2").await;
    settle_unready(&mut cluster).await;
    assert_eq!(images(&cluster)[1].1, "db:2");
    cluster.settle().await;
    assert!(images(&cluster).iter().all(|(_, image)| image == "db:2"));
}

#[tokio::test]
async fn on_delete_waits_for_somebody_to_delete() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}})).await;
    cluster.settle().await;
    set_image(&cluster, "db:2").await;
    cluster.settle().await;
    assert_eq!(images(&cluster)[0].1, "db:1");
    cluster.delete("v1", "Pod", "default", "db-0", Delete::default()).await;
    cluster.settle().await;
    assert_eq!((images(&cluster)[0].1.as_str(), images(&cluster)[1].1.as_str()), ("db:2", "db:1"));
}

#[tokio::test]
async fn the_next_pod_waits_until_the_last_has_served_for_long_enough() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 2, "minReadySeconds": 10})).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0"]);
    assert_eq!((status(&cluster).ready_replicas, status(&cluster).available_replicas), (Some(1), Some(0)));
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    assert_eq!(names(&cluster), ["db-0", "db-1"]);
    assert_eq!(status(&cluster).available_replicas, Some(1));
}

#[tokio::test]
async fn what_ended_is_made_again() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 2})).await;
    cluster.settle().await;
    for phase in ["Failed", "Succeeded"] {
        let before = staying(&cluster)[0].metadata.uid.clone();
        cluster
            .patch("v1", "Pod", "default", "db-0", "status", json!({"status": {"phase": phase}}))
            .await
            .unwrap();
        cluster.settle().await;
        assert_eq!(names(&cluster), ["db-0", "db-1"]);
        assert_ne!(staying(&cluster)[0].metadata.uid, before, "{phase}");
    }
}

#[tokio::test]
async fn labels_that_make_a_pod_its_own_come_back_and_others_are_left_alone() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 1})).await;
    cluster.settle().await;
    let no_label = json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": null}}});
    cluster.patch("v1", "Pod", "default", "db-0", "", no_label).await.unwrap();
    // One that the selector means but that is none of its pods by its name.
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "db-01", "namespace": "default", "labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
        }))
        .await;
    cluster.settle().await;
    let pods = staying(&cluster);
    assert_eq!(pods[0].metadata.labels.as_ref().unwrap()["statefulset.kubernetes.io/pod-name"], "db-0");
    assert_eq!(cluster.told("db", "SuccessfulUpdate"), ["update Pod db-0 in StatefulSet db successful"]);
    assert_eq!(pods[1].metadata.owner_references, None);
    // One of its ordinal that was there before it is adopted, whatever made it.
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "db-1", "namespace": "default", "labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
        }))
        .await;
    change(&cluster, json!({"replicas": 2})).await;
    cluster.settle().await;
    assert_eq!(images(&cluster)[2], ("db-1".to_owned(), "db:1".to_owned()), "it had another template");
}

#[tokio::test]
async fn old_revisions_go_when_there_are_too_many() {
    let mut cluster = Cluster::new(&["n1"]).await;
    stateful(&cluster, json!({"replicas": 1, "revisionHistoryLimit": 2})).await;
    for n in 1..6 {
        set_image(&cluster, &format!("db:{n}")).await;
        cluster.settle().await;
    }
    let mut numbers: Vec<_> =
        cluster.list::<ControllerRevision>().iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 4, 5]);
}
