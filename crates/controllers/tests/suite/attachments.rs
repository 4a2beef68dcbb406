//! Volumes of CSI drivers are attached where their pods are, and nowhere else.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use objects::Delete;
use serde_json::{Value, json};

const GROUP: &str = "storage.k8s.io/v1";
const OF_ATTACHER: &str = "external-attacher/disks-example-org";

/// Two hosts whose kubelets leave attaching to a controller, and one that does it itself; a claim with a disk, for one node alone.
async fn cluster(modes: Value) -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2", "own"]).await;
    for node in ["n1", "n2"] {
        let managed = json!({"metadata": {"annotations":
            {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}});
        cluster.patch("v1", "Node", "", node, "", managed).await.unwrap();
    }
    let csi = json!({"driver": "disks.example.org", "volumeHandle": "disk-1"});
    cluster
        .create(json!({
            "kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "pv"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": modes, "csi": csi,
                "storageClassName": "c", "claimRef": {"namespace": "default", "name": "data"}},
        }))
        .await;
    cluster
        .create(json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "data", "namespace": "default"},
            "spec": {"accessModes": modes, "storageClassName": "c", "volumeName": "pv",
                "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .await;
    cluster.settle().await;
    cluster
}

async fn pod(cluster: &Cluster, name: &str, node: &str) {
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
        }))
        .await;
}

async fn end(cluster: &Cluster, name: &str) {
    cluster
        .delete("v1", "Pod", "default", name, Delete { grace_seconds: Some(0), ..Delete::default() })
        .await;
}

/// Each attachment's node and whether it is going.
fn attachments(cluster: &Cluster) -> Vec<(String, bool)> {
    let all = cluster.list::<VolumeAttachment>();
    let each = all.iter().map(|one| (one.spec.node_name.clone(), one.metadata.deletion_timestamp.is_some()));
    each.collect()
}

fn on(node: &str) -> (String, bool) {
    (node.to_owned(), false)
}

/// What the driver's external-attacher does: all that is to be attached is, and what is to go is let go.
async fn attacher(cluster: &Cluster) {
    for one in cluster.list::<VolumeAttachment>() {
        let name = one.metadata.name.as_deref().unwrap();
        let (patch, subresource) = match one.metadata.deletion_timestamp {
            Some(_) => (json!({"metadata": {"finalizers": null}}), ""),
            None => {
                let kept = json!({"metadata": {"finalizers": [OF_ATTACHER]}});
                cluster.patch(GROUP, "VolumeAttachment", "", name, "", kept).await.unwrap();
                (json!({"status": {"attached": true, "attachError": null}}), "status")
            }
        };
        cluster.patch(GROUP, "VolumeAttachment", "", name, subresource, patch).await.unwrap();
    }
}

/// What a node says is attached to it.
fn reported(cluster: &Cluster, node: &str) -> Vec<String> {
    let status = cluster.get::<Node>("", node).unwrap().status.unwrap();
    status.volumes_attached.into_iter().flatten().map(|volume| volume.name).collect()
}

async fn mounted(cluster: &Cluster, node: &str, volumes: &[&str]) {
    let status = json!({"status": {"volumesInUse": volumes}});
    cluster.patch("v1", "Node", "", node, "status", status).await.unwrap();
}

const DISK: &str = "kubernetes.io/csi/disks.example.org^disk-1";

#[tokio::test]
async fn a_volume_is_attached_for_its_pod_and_detached_after_it() {
    let mut cluster = cluster(json!(["ReadWriteOnce"])).await;
    assert_eq!(attachments(&cluster), [], "nobody uses it");
    pod(&cluster, "p", "n1").await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n1")]);
    let made = &cluster.list::<VolumeAttachment>()[0];
    assert_eq!(made.spec.attacher, "disks.example.org");
    assert_eq!(made.spec.source.persistent_volume_name.as_deref(), Some("pv"));
    // printf disk-1disks.example.orgn1 | sha256sum
    assert_eq!(
        made.metadata.name.as_deref().unwrap(),
        "csi-beb2df2a056202aa442e7a4f5b1c2a373e19aa4cfe68dfd23f8f1527b461119e"
    );
    assert_eq!(reported(&cluster, "n1"), [""; 0], "nobody has attached it yet");

    let refused = json!({"status": {"attached": false, "attachError": {"message": "no such disk"}}});
    let name = made.metadata.name.clone().unwrap();
    cluster.patch(GROUP, "VolumeAttachment", "", &name, "status", refused).await.unwrap();
    cluster.settle().await;
    let why = "AttachVolume.Attach failed for volume \"pv\" : no such disk";
    assert_eq!(cluster.told("p", "FailedAttachVolume"), [why]);

    attacher(&cluster).await;
    cluster.settle().await;
    assert_eq!(reported(&cluster, "n1"), [DISK]);
    let told = cluster.told("p", "SuccessfulAttachVolume");
    assert_eq!(told, ["AttachVolume.Attach succeeded for volume \"pv\" "]);

    // While its kubelet has it mounted, it stays.
    mounted(&cluster, "n1", &[DISK]).await;
    end(&cluster, "p").await;
    cluster.settle().await;
    assert_eq!((attachments(&cluster), reported(&cluster, "n1")), (vec![on("n1")], vec![DISK.to_owned()]));
    mounted(&cluster, "n1", &[]).await;
    cluster.settle().await;
    assert_eq!((attachments(&cluster), reported(&cluster, "n1")), (vec![("n1".to_owned(), true)], vec![]));
    // Another pod waits until it is detached.
    pod(&cluster, "q", "n1").await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [("n1".to_owned(), true)]);
    attacher(&cluster).await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n1")], "anew");
}

#[tokio::test]
async fn a_disk_for_one_node_waits_until_it_has_left_the_other() {
    let mut cluster = cluster(json!(["ReadWriteOnce"])).await;
    pod(&cluster, "first", "n1").await;
    cluster.settle().await;
    attacher(&cluster).await;
    cluster.settle().await;
    pod(&cluster, "second", "n2").await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n1")]);
    let told = cluster.told("second", "FailedAttachVolume");
    assert_eq!(
        told.last().unwrap(),
        "Multi-Attach error for volume \"pv\" Volume is already used by pod(s) first"
    );
    end(&cluster, "first").await;
    cluster.settle().await;
    let told = cluster.told("second", "FailedAttachVolume");
    let nobody = "Multi-Attach error for volume \"pv\" Volume is already exclusively attached to one node and can't be \
                  attached to another";
    assert!(told.iter().all(|why| why.contains("first") || why == nobody), "{told:?}");
    attacher(&cluster).await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n2")]);
}

#[tokio::test]
async fn what_several_nodes_may_have_is_attached_to_each() {
    let mut cluster = cluster(json!(["ReadWriteMany"])).await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2"), ("d", "own")] {
        pod(&cluster, name, node).await;
    }
    cluster.settle().await;
    let mut all = attachments(&cluster);
    all.sort();
    assert_eq!(all, [on("n1"), on("n2")], "the third does it itself");
    attacher(&cluster).await;
    end(&cluster, "b").await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster).len(), 2, "one more uses it there");
    // A pod that has ended uses nothing.
    cluster.end("default", "c", 0).await;
    cluster.settle().await;
    attacher(&cluster).await;
    assert_eq!(attachments(&cluster), [on("n1")]);
}

#[tokio::test]
async fn a_driver_that_attaches_nothing_has_no_attachments() {
    let mut cluster = cluster(json!(["ReadWriteOnce"])).await;
    let driver = |attaches: bool| {
        json!({"kind": "CSIDriver", "apiVersion": GROUP, "metadata": {"name": "disks.example.org"},
            "spec": {"attachRequired": attaches}})
    };
    cluster.create(driver(false)).await;
    pod(&cluster, "p", "n1").await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), []);
    cluster.delete(GROUP, "CSIDriver", "", "disks.example.org", Delete::default()).await;
    cluster.create(driver(true)).await;
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n1")]);
}

#[tokio::test]
async fn what_a_failing_node_has_mounted_is_detached_after_six_minutes() {
    let mut cluster = cluster(json!(["ReadWriteOnce"])).await;
    pod(&cluster, "p", "n1").await;
    cluster.settle().await;
    attacher(&cluster).await;
    mounted(&cluster, "n1", &[DISK]).await;
    let failed = json!({"status": {"conditions": [cluster.condition("Ready", "False")]}});
    cluster.patch("v1", "Node", "", "n1", "status", failed).await.unwrap();
    end(&cluster, "p").await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(300));
    // Another leader knows since when.
    cluster.take_over();
    cluster.settle().await;
    assert_eq!(attachments(&cluster), [on("n1")]);
    cluster.pass(Duration::from_secs(61));
    cluster.settle().await;
    assert_eq!((attachments(&cluster), reported(&cluster, "n1")), (vec![("n1".to_owned(), true)], vec![]));
}

#[tokio::test]
async fn what_a_node_had_that_is_gone_or_switched_off_is_detached_at_once() {
    for gone in [true, false] {
        let mut cluster = cluster(json!(["ReadWriteOnce"])).await;
        pod(&cluster, "p", "n1").await;
        cluster.settle().await;
        attacher(&cluster).await;
        mounted(&cluster, "n1", &[DISK]).await;
        cluster.settle().await;
        if gone {
            cluster.delete("v1", "Node", "", "n1", Delete::default()).await;
        } else {
            let off = json!({"spec": {"taints": [
                {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]}});
            cluster.patch("v1", "Node", "", "n1", "", off).await.unwrap();
        }
        end(&cluster, "p").await;
        // Somebody else's attachment is theirs.
        cluster
            .create(json!({"kind": "VolumeAttachment", "apiVersion": GROUP, "metadata": {"name": "mine"},
                "spec": {"attacher": "disks.example.org", "nodeName": "n1", "source": {"persistentVolumeName": "pv"}}}))
            .await;
        cluster.settle().await;
        let mut all = attachments(&cluster);
        all.sort();
        assert_eq!(all, [on("n1"), ("n1".to_owned(), true)], "gone: {gone}");
    }
}
