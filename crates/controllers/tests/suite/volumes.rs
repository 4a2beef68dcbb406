//! Claims and volumes find each other, and part again.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use objects::Delete;
use serde_json::{Value, json};

pub async fn class(cluster: &Cluster, name: &str, provisioner: &str, mode: &str, policy: &str) {
    cluster
        .create(json!({
            "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": name},
            "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": policy,
            "allowVolumeExpansion": true,
        }))
        .await;
}

/// A claim of a class for 1 GiB, with more in its spec.
async fn claim(cluster: &Cluster, name: &str, class: &str, more: Value) {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "1Gi"}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
        .create(json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        }))
        .await;
}

/// A volume of a class and a size, with more in its spec.
async fn volume(cluster: &Cluster, name: &str, class: &str, size: &str, more: Value) {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": class, "capacity": {"storage": size},
        "hostPath": {"path": "/tmp/v"}, "persistentVolumeReclaimPolicy": "Retain",
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
        .create(json!({
            "kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": name, "labels": {"disk": name}},
            "spec": spec,
        }))
        .await;
}

/// A claim's phase and volume.
fn bound(cluster: &Cluster, name: &str) -> (String, String) {
    let claim: PersistentVolumeClaim = cluster.get("default", name).unwrap();
    let volume = claim.spec.unwrap().volume_name.unwrap_or_default();
    (claim.status.unwrap().phase.unwrap_or_default(), volume)
}

/// A volume's phase and claim.
fn held(cluster: &Cluster, name: &str) -> (String, String) {
    let volume: PersistentVolume = cluster.get("", name).unwrap();
    let claim = volume.spec.unwrap().claim_ref.and_then(|claim| claim.name).unwrap_or_default();
    (volume.status.unwrap().phase.unwrap_or_default(), claim)
}

fn pair(phase: &str, other: &str) -> (String, String) {
    (phase.to_owned(), other.to_owned())
}

async fn change_claim(cluster: &Cluster, name: &str, patch: Value) {
    cluster.patch("v1", "PersistentVolumeClaim", "default", name, "", patch).await.unwrap();
}

#[tokio::test]
async fn a_claim_gets_the_smallest_volume_that_is_as_it_asks() {
    let mut cluster = Cluster::new(&[]).await;
    for (name, class, size, more) in [
        ("large", "c", "5Gi", json!({})),
        ("other-class", "d", "1Gi", json!({})),
        ("small", "c", "500Mi", json!({})),
        ("device", "c", "1Gi", json!({"volumeMode": "Block"})),
        ("read-only", "c", "1Gi", json!({"accessModes": ["ReadOnlyMany"]})),
        ("fitting", "c", "2Gi", json!({})),
    ] {
        volume(&cluster, name, class, size, more).await;
    }
    cluster.settle().await;
    assert_eq!(held(&cluster, "fitting"), pair("Available", ""));
    claim(&cluster, "a", "c", json!({})).await;
    claim(&cluster, "b", "c", json!({"selector": {"matchLabels": {"disk": "large"}}})).await;
    claim(&cluster, "c", "c", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "a"), pair("Bound", "fitting"));
    assert_eq!(held(&cluster, "fitting"), pair("Bound", "a"));
    assert_eq!(bound(&cluster, "b"), pair("Bound", "large"));
    assert_eq!(bound(&cluster, "c"), pair("Pending", ""));
    let told = cluster.told("c", "ProvisioningFailed");
    assert_eq!(told.last().unwrap(), "storageclass.storage.k8s.io \"c\" not found");
    let status = cluster.get::<PersistentVolumeClaim>("default", "a").unwrap().status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "2Gi", "what it got");
    assert_eq!(status.access_modes.unwrap(), ["ReadWriteOnce", "ReadOnlyMany"]);

    // One that comes later is taken at once.
    volume(&cluster, "late", "c", "1Gi", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "c"), pair("Bound", "late"));
}

#[tokio::test]
async fn a_person_decides_first_from_either_side() {
    let mut cluster = Cluster::new(&[]).await;
    let for_b = json!({"claimRef": {"namespace": "default", "name": "b"}});
    volume(&cluster, "kept", "", "1Gi", for_b).await;
    volume(&cluster, "tiny", "", "1Mi", json!({})).await;
    claim(&cluster, "a", "", json!({})).await;
    claim(&cluster, "named", "", json!({"volumeName": "kept"})).await;
    claim(&cluster, "too-large", "", json!({"volumeName": "tiny"})).await;
    claim(&cluster, "early", "", json!({"volumeName": "to-come"})).await;
    cluster.settle().await;
    assert_eq!(held(&cluster, "kept"), pair("Available", "b"));
    for name in ["a", "named", "too-large", "early"] {
        assert_eq!(bound(&cluster, name).0, "Pending", "{name}");
    }
    let free = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(cluster.told("a", "FailedBinding").last().unwrap(), free);
    let taken = "volume \"kept\" already bound to a different claim.";
    assert_eq!(cluster.told("named", "FailedBinding").last().unwrap(), taken);
    let small = "Cannot bind to requested volume \"tiny\": requested PV is too small";
    assert_eq!(cluster.told("too-large", "VolumeMismatch").last().unwrap(), small);

    claim(&cluster, "b", "", json!({})).await;
    volume(&cluster, "to-come", "", "1Gi", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "b"), pair("Bound", "kept"));
    assert_eq!(bound(&cluster, "early"), pair("Bound", "to-come"));
}

#[tokio::test]
async fn a_volume_that_is_given_up_does_as_its_policy_says() {
    let mut cluster = Cluster::new(&[]).await;
    for (name, policy) in [("keep", "Retain"), ("delete", "Delete"), ("recycle", "Recycle")] {
        let policy = json!({"persistentVolumeReclaimPolicy": policy});
        volume(&cluster, name, "", "1Gi", policy).await;
        claim(&cluster, name, "", json!({"volumeName": name})).await;
    }
    cluster.settle().await;
    for name in ["keep", "delete", "recycle"] {
        assert_eq!(bound(&cluster, name).0, "Bound");
        cluster.delete("v1", "PersistentVolumeClaim", "default", name, Delete::default()).await;
    }
    cluster.settle().await;
    assert_eq!(held(&cluster, "keep"), pair("Released", "keep"));
    assert_eq!(held(&cluster, "delete").0, "Failed");
    assert_eq!(held(&cluster, "recycle").0, "Failed");
    let told = cluster.told("delete", "VolumeFailedDelete");
    assert!(told[0].ends_with("no deletable volume plugin matched"), "{told:?}");

    // A new claim of that name gets none that another one wrote to.
    claim(&cluster, "keep", "", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "keep").0, "Pending");
    // Until a person has looked after it.
    let free = json!({"spec": {"claimRef": null}});
    cluster.patch("v1", "PersistentVolume", "", "keep", "", free).await.unwrap();
    cluster.settle().await;
    assert_eq!(bound(&cluster, "keep"), pair("Bound", "keep"));
}

#[tokio::test]
async fn a_claim_whose_volume_is_gone_is_lost_and_says_so() {
    let mut cluster = Cluster::new(&[]).await;
    volume(&cluster, "v", "", "1Gi", json!({})).await;
    claim(&cluster, "a", "", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "a"), pair("Bound", "v"));
    let now = json!({"metadata": {"finalizers": null}});
    cluster.delete("v1", "PersistentVolume", "", "v", Delete::default()).await;
    assert_eq!(held(&cluster, "v").0, "Bound", "it is protected while it is bound");
    cluster.patch("v1", "PersistentVolume", "", "v", "", now).await.unwrap();
    cluster.settle().await;
    assert_eq!(bound(&cluster, "a"), pair("Lost", "v"));
    assert_eq!(cluster.told("a", "ClaimLost").len(), 1);
}

const PROVISIONER: &str = objects::LOCAL_PATH;

#[tokio::test]
async fn a_folder_is_made_on_the_host_that_was_selected_and_goes_with_its_claim() {
    let mut cluster = Cluster::new(&["n1"]).await;
    class(&cluster, "local-path", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    claim(&cluster, "data", "local-path", json!({})).await;
    cluster.settle().await;
    assert_eq!(bound(&cluster, "data"), pair("Pending", ""));
    let waits = "waiting for first consumer to be created before binding";
    assert_eq!(cluster.told("data", "WaitForFirstConsumer").last().unwrap(), waits);

    let select = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    change_claim(&cluster, "data", select).await;
    cluster.settle().await;
    let (phase, name) = bound(&cluster, "data");
    assert_eq!(phase, "Bound");
    let made: PersistentVolume = cluster.get("", &name).unwrap();
    let uid = cluster.get::<PersistentVolumeClaim>("default", "data").unwrap().metadata.uid.unwrap();
    assert_eq!(name, format!("pvc-{uid}"));
    let spec = made.spec.unwrap();
    assert_eq!(spec.local.unwrap().path, format!("/data/volumes/{name}"));
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    let affinity = json!(spec.node_affinity);
    let hosts = affinity.pointer("/required/nodeSelectorTerms/0/matchExpressions/0/values").unwrap();
    assert_eq!(*hosts, json!(["n1"]));
    assert_eq!(
        cluster.told("data", "ProvisioningSucceeded"),
        [format!("Successfully provisioned volume {name}")]
    );

    // It grows, and says how large it is.
    change_claim(&cluster, "data", json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}})).await;
    cluster.settle().await;
    let capacity = cluster.get::<PersistentVolumeClaim>("default", "data").unwrap().status.unwrap().capacity;
    assert_eq!(capacity.unwrap()["storage"].0, "3Gi");

    // The volume is there until its folder is gone.
    cluster.delete("v1", "PersistentVolumeClaim", "default", "data", Delete::default()).await;
    cluster.settle().await;
    let going: PersistentVolume = cluster.get("", &name).unwrap();
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(going.metadata.finalizers.unwrap(), [PROVISIONER]);
    // Or the host, for good.
    cluster.delete("v1", "Node", "", "n1", Delete::default()).await;
    cluster.settle().await;
    assert!(cluster.get::<PersistentVolume>("", &name).is_none());
}

#[tokio::test]
async fn what_no_folder_can_be_is_refused_with_the_reason() {
    let mut cluster = Cluster::new(&["n1"]).await;
    class(&cluster, "at-once", PROVISIONER, "Immediate", "Delete").await;
    class(&cluster, "local-path", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    class(&cluster, "foreign", "kubernetes.io/no-provisioner", "Immediate", "Delete").await;
    let select = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    for (name, class, more, why) in [
        ("a", "at-once", json!({}), "must be WaitForFirstConsumer"),
        ("b", "local-path", json!({"accessModes": ["ReadWriteMany"]}), "a folder is on one host"),
        ("c", "local-path", json!({"volumeMode": "Block"}), "a folder is no block device"),
        ("d", "local-path", json!({"selector": {"matchLabels": {"a": "b"}}}), "Selector is not supported"),
        ("e", "foreign", json!({}), "no volume plugin matched name: kubernetes.io/no-provisioner"),
    ] {
        claim(&cluster, name, class, more).await;
        if class == "local-path" {
            change_claim(&cluster, name, select.clone()).await;
        }
        cluster.settle().await;
        let told = cluster.told(name, "ProvisioningFailed");
        assert!(told.iter().any(|told| told.contains(why)), "{name}: {told:?}");
        assert_eq!(bound(&cluster, name), pair("Pending", ""));
    }
    // A host that is gone is chosen no more.
    claim(&cluster, "f", "local-path", json!({})).await;
    let nowhere = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n9"}}});
    change_claim(&cluster, "f", nowhere).await;
    cluster.settle().await;
    let annotations =
        cluster.get::<PersistentVolumeClaim>("default", "f").unwrap().metadata.annotations.unwrap();
    assert!(!annotations.contains_key("volume.kubernetes.io/selected-node"), "{annotations:?}");
}

#[tokio::test]
async fn a_pods_own_volume_has_a_claim_that_goes_with_the_pod() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}},
    }});
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "c"}],
                "volumes": [{"name": "own", "ephemeral": {"volumeClaimTemplate": template}}]},
        }))
        .await;
    cluster.settle().await;
    let claim: PersistentVolumeClaim = cluster.get("default", "p-own").unwrap();
    assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
    assert_eq!(claim.metadata.owner_references.unwrap()[0].name, "p");
    cluster.delete("v1", "Pod", "default", "p", Delete::default()).await;
    cluster.settle().await;
    assert!(cluster.get::<PersistentVolumeClaim>("default", "p-own").is_none());
}

/// A pod with claims, and with more in its spec.
async fn pod(cluster: &Cluster, name: &str, claims: &[&str], more: Value) {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let mut spec = json!({"containers": [{"name": "c", "image": "c"}], "volumes": volumes});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        }))
        .await;
}

/// Lets everybody work, and a while later once more: a pod without a place rests before it is looked at again.
async fn settle_later(cluster: &mut Cluster) {
    for _ in 0..2 {
        cluster.settle().await;
        cluster.pass(std::time::Duration::from_secs(5));
    }
    cluster.settle().await;
}

fn node_of(cluster: &Cluster, pod: &str) -> Option<String> {
    cluster.get::<k8s_openapi::api::core::v1::Pod>("default", pod).unwrap().spec.unwrap().node_name
}

#[tokio::test]
async fn a_volume_is_made_where_its_first_pod_goes_and_later_pods_go_there() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    class(&cluster, "local-path", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    claim(&cluster, "data", "local-path", json!({})).await;
    claim(&cluster, "more", "local-path", json!({})).await;
    pod(&cluster, "first", &["data", "more"], json!({"nodeSelector": {"kubernetes.io/hostname": "n2"}}))
        .await;
    cluster.settle().await;
    assert_eq!(node_of(&cluster, "first").as_deref(), Some("n2"));
    for name in ["data", "more"] {
        assert_eq!(bound(&cluster, name).0, "Bound", "{name}");
    }
    cluster.delete("v1", "Pod", "default", "first", Delete::default()).await;
    cluster.settle().await;
    pod(&cluster, "second", &["data"], json!({})).await;
    pod(&cluster, "elsewhere", &["data"], json!({"nodeSelector": {"kubernetes.io/hostname": "n1"}})).await;
    cluster.settle().await;
    assert_eq!(node_of(&cluster, "second").as_deref(), Some("n2"));
    assert_eq!(node_of(&cluster, "elsewhere"), None);
}

#[tokio::test]
async fn a_pod_waits_for_claims_that_have_no_volume() {
    let mut cluster = Cluster::new(&["n1"]).await;
    class(&cluster, "at-once", "example.com/disks", "Immediate", "Delete").await;
    claim(&cluster, "data", "at-once", json!({})).await;
    pod(&cluster, "waits", &["data"], json!({})).await;
    pod(&cluster, "early", &["later"], json!({})).await;
    cluster.settle().await;
    assert_eq!((node_of(&cluster, "waits"), node_of(&cluster, "early")), (None, None));
    claim(&cluster, "later", "at-once", json!({})).await;
    for name in ["one", "two"] {
        volume(&cluster, name, "at-once", "1Gi", json!({})).await;
    }
    settle_later(&mut cluster).await;
    assert_eq!(node_of(&cluster, "waits").as_deref(), Some("n1"));
    assert_eq!(node_of(&cluster, "early").as_deref(), Some("n1"));
}

#[tokio::test]
async fn a_volume_that_is_there_already_draws_its_pod_to_it() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    class(&cluster, "disks", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", "Retain").await;
    let on = |host: &str| {
        let there = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
        json!({"hostPath": null, "local": {"path": "/disk"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [there]}]}}})
    };
    volume(&cluster, "large", "disks", "5Gi", on("n1")).await;
    volume(&cluster, "small", "disks", "2Gi", on("n2")).await;
    for name in ["a", "b", "c"] {
        claim(&cluster, name, "disks", json!({})).await;
        pod(&cluster, name, &[name], json!({})).await;
        settle_later(&mut cluster).await;
    }
    let places: Vec<_> =
        ["a", "b"].map(|name| (node_of(&cluster, name).unwrap(), bound(&cluster, name).1)).into();
    for (node, volume) in &places {
        assert_eq!(volume, if node == "n1" { "large" } else { "small" }, "{places:?}");
    }
    assert_ne!(places[0], places[1]);
    assert_eq!(node_of(&cluster, "c"), None, "there is no third one");
    assert_eq!(bound(&cluster, "c"), pair("Pending", ""));
}

#[tokio::test]
async fn a_claim_of_a_single_pod_has_one_pod_at_a_time() {
    let mut cluster = Cluster::new(&["n1"]).await;
    class(&cluster, "local-path", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    claim(&cluster, "data", "local-path", json!({"accessModes": ["ReadWriteOncePod"]})).await;
    pod(&cluster, "first", &["data"], json!({})).await;
    cluster.settle().await;
    pod(&cluster, "second", &["data"], json!({})).await;
    cluster.settle().await;
    assert_eq!(node_of(&cluster, "first").as_deref(), Some("n1"));
    assert_eq!(node_of(&cluster, "second"), None);
    cluster.delete("v1", "Pod", "default", "first", Delete::default()).await;
    cluster.settle().await;
    settle_later(&mut cluster).await;
    assert_eq!(node_of(&cluster, "second").as_deref(), Some("n1"));
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_one_when_there_is_one() {
    let mut cluster = Cluster::new(&[]).await;
    claim(&cluster, "early", "", json!({"storageClassName": null})).await;
    claim(&cluster, "none", "", json!({})).await;
    cluster.settle().await;
    class(&cluster, "plain", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    cluster.settle().await;
    let class_of = |cluster: &Cluster, name: &str| {
        cluster.get::<PersistentVolumeClaim>("default", name).unwrap().spec.unwrap().storage_class_name
    };
    assert_eq!(class_of(&cluster, "early"), None);
    let mark = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    cluster.patch("storage.k8s.io/v1", "StorageClass", "", "plain", "", mark).await.unwrap();
    cluster.settle().await;
    assert_eq!(class_of(&cluster, "early").as_deref(), Some("plain"));
    assert_eq!(class_of(&cluster, "none").as_deref(), Some(""), "it wants none");
}

#[tokio::test]
async fn a_claim_whose_volume_is_made_on_a_node_takes_no_other_hosts() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    class(&cluster, "local-path", PROVISIONER, "WaitForFirstConsumer", "Delete").await;
    claim(&cluster, "data", "local-path", json!({})).await;
    let select = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    change_claim(&cluster, "data", select).await;
    volume(&cluster, "elsewhere", "local-path", "1Gi", json!({})).await;
    cluster.settle().await;
    let (phase, name) = bound(&cluster, "data");
    assert_eq!((phase.as_str(), name.starts_with("pvc-")), ("Bound", true), "{name}");
    assert_eq!(held(&cluster, "elsewhere"), pair("Available", ""));
}

#[tokio::test]
async fn a_class_of_attributes_goes_once_no_volume_and_no_claim_has_it() {
    let mut cluster = Cluster::new(&[]).await;
    let class = |name: &str| {
        json!({"kind": "VolumeAttributesClass", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": name},
            "driverName": "disks.example.org", "parameters": {"iops": "100"}})
    };
    let names = |cluster: &Cluster| {
        let classes = cluster.list::<VolumeAttributesClass>();
        classes.iter().map(|class| class.metadata.name.clone().unwrap()).collect::<Vec<_>>()
    };
    for name in ["gold", "idle", "silver"] {
        cluster.create(class(name)).await;
    }
    claim(&cluster, "asks", "", json!({"volumeAttributesClassName": "gold"})).await;
    claim(&cluster, "had", "", json!({})).await;
    let has = json!({"status": {"currentVolumeAttributesClassName": "silver"}});
    cluster.patch("v1", "PersistentVolumeClaim", "default", "had", "status", has).await.unwrap();
    cluster.settle().await;
    for name in ["gold", "idle", "silver"] {
        cluster.delete("storage.k8s.io/v1", "VolumeAttributesClass", "", name, Delete::default()).await;
    }
    cluster.settle().await;
    assert_eq!(names(&cluster), ["gold", "silver"]);

    // A claim that is on its way from one to another has both.
    let modify = json!({"targetVolumeAttributesClassName": "gold", "status": "InProgress"});
    let status = json!({"status": {"currentVolumeAttributesClassName": null, "modifyVolumeStatus": modify}});
    cluster.patch("v1", "PersistentVolumeClaim", "default", "had", "status", status).await.unwrap();
    cluster.delete("v1", "PersistentVolumeClaim", "default", "asks", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["gold"]);
    volume(
        &cluster,
        "v",
        "",
        "1Gi",
        json!({"volumeAttributesClassName": "gold", "hostPath": null,
        "csi": {"driver": "disks.example.org", "volumeHandle": "v"}}),
    )
    .await;
    cluster.delete("v1", "PersistentVolumeClaim", "default", "had", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), ["gold"]);
    cluster.delete("v1", "PersistentVolume", "", "v", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), [""; 0]);
}
