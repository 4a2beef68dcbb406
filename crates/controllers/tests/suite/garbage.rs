//! Garbage collection: what goes with its owners, and what stays because nobody can judge them.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use objects::{Delete, Propagation};
use serde_json::{Value, json};

const ANYBODY: &str = "12345678-0000-0000-0000-000000000000";

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid})
}

fn map(namespace: &str, name: &str, owners: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}})
}

fn is_there(cluster: &Cluster, name: &str) -> bool {
    cluster.get::<ConfigMap>("default", name).is_some()
}

/// A definition of Gizmos in these versions, all served, established by hand as its keeper would.
async fn define(cluster: &Cluster, versions: &[(&str, bool)]) {
    let version = |(name, served): &(&str, bool)| {
        json!({"name": name, "served": served, "storage": *name == "v1", "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let names = json!({"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"});
    cluster
        .create(json!({
            "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "gizmos.bug.io"},
            "spec": {"group": "bug.io", "scope": "Namespaced", "names": names,
                "versions": versions.iter().map(version).collect::<Vec<_>>()},
        }))
        .await;
    let status = json!({"status": {"acceptedNames": names, "conditions":
        [cluster.condition("NamesAccepted", "True"), cluster.condition("Established", "True")]}});
    let kind = "CustomResourceDefinition";
    let version = "apiextensions.k8s.io/v1";
    cluster.patch(version, kind, "", "gizmos.bug.io", "status", status).await.unwrap();
}

async fn gizmo(cluster: &Cluster, name: &str) -> String {
    let gizmo = json!({"kind": "Gizmo", "apiVersion": "bug.io/v1", "metadata": {"name": name, "namespace": "default"}});
    cluster.create(gizmo).await.uid().to_owned()
}

#[tokio::test]
async fn no_namespaced_owner_takes_a_cluster_scoped_object_along() {
    let mut cluster = Cluster::new(&[]).await;
    let real = cluster.create(map("default", "real", json!([]))).await;
    let invented = json!([owner("apps/v1", "Deployment", "anything", ANYBODY)]);
    let existing = json!([owner("v1", "ConfigMap", "real", real.uid())]);
    cluster
        .create(json!({"kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "provisioner": "x.io/y",
            "metadata": {"name": "sc", "ownerReferences": invented}}))
        .await;
    cluster
        .create(json!({"kind": "PersistentVolume", "apiVersion": "v1",
            "metadata": {"name": "pv", "ownerReferences": invented},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "hostPath": {"path": "/tmp/v"}}}))
        .await;
    cluster
        .create(json!({"kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": "shop", "ownerReferences": invented}}))
        .await;
    cluster.create(map("shop", "inside", json!([]))).await;
    cluster
        .create(json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "rules": [],
            "metadata": {"name": "role", "ownerReferences": existing}}))
        .await;
    cluster.settle().await;
    assert!(cluster.get::<StorageClass>("", "sc").is_some());
    assert!(cluster.get::<PersistentVolume>("", "pv").is_some());
    assert!(cluster.get::<Namespace>("", "shop").unwrap().metadata.deletion_timestamp.is_none());
    assert!(cluster.get::<ConfigMap>("shop", "inside").is_some());
    assert!(cluster.get::<ClusterRole>("", "role").is_some());
    for name in ["sc", "pv", "shop", "role"] {
        assert!(!cluster.told(name, "OwnerRefInvalidNamespace").is_empty(), "{name}");
    }
    assert_eq!(
        cluster.told("sc", "OwnerRefInvalidNamespace")[0],
        format!(
            "ownerRef [apps/v1/Deployment, namespace: , name: anything, uid: {ANYBODY}] does not exist in namespace \"\""
        )
    );

    // Its end is not theirs either.
    cluster.delete("v1", "ConfigMap", "default", "real", Delete::default()).await;
    cluster.settle().await;
    assert!(cluster.get::<ClusterRole>("", "role").is_some());
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none_and_that_is_told() {
    let mut cluster = Cluster::new(&[]).await;
    cluster.create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})).await;
    let real = cluster.create(map("shop", "real", json!([]))).await;
    let owners = json!([owner("v1", "ConfigMap", "real", real.uid())]);
    cluster.create(map("default", "child", owners.clone())).await;
    cluster.create(map("shop", "sibling", owners)).await;
    let space: Namespace = cluster.get("", "shop").unwrap();
    let owners = json!([owner("v1", "Namespace", "shop", &space.metadata.uid.unwrap())]);
    cluster.create(map("default", "of-the-cluster", owners)).await;
    cluster.settle().await;
    assert!(!is_there(&cluster, "child"));
    let told = cluster.told("child", "OwnerRefInvalidNamespace");
    assert!(told[0].ends_with("does not exist in namespace \"default\""), "{told:?}");
    assert!(cluster.get::<ConfigMap>("shop", "sibling").is_some());
    assert!(is_there(&cluster, "of-the-cluster"), "a cluster-scoped owner is everybody's");
}

#[tokio::test]
async fn an_owner_of_another_name_kind_or_uid_is_none() {
    let mut cluster = Cluster::new(&[]).await;
    let real = cluster.create(map("default", "real", json!([]))).await;
    for (name, reference) in [
        ("name", owner("v1", "ConfigMap", "other", real.uid())),
        ("kind", owner("v1", "Secret", "real", real.uid())),
        ("uid", owner("v1", "ConfigMap", "real", ANYBODY)),
    ] {
        cluster.create(map("default", name, json!([reference]))).await;
    }
    cluster.settle().await;
    for name in ["name", "kind", "uid"] {
        assert!(!is_there(&cluster, name), "{name}");
    }
}

#[tokio::test]
async fn what_names_a_kind_that_nobody_serves_stays_with_all_its_owners() {
    let mut cluster = Cluster::new(&[]).await;
    define(&cluster, &[("v1", true), ("v2", false)]).await;
    let live = gizmo(&cluster, "live").await;
    let foo = || owner("nope.io/v1", "Foo", "foo", ANYBODY);
    for (name, owners) in [
        ("foo", json!([foo()])),
        ("version", json!([owner("bug.io/v2", "Gizmo", "live", &live)])),
        ("other-version", json!([owner("bug.io/v2", "Gizmo", "none", ANYBODY)])),
        ("old", json!([owner("apps/v1beta1", "Deployment", "d", ANYBODY)])),
        ("core", json!([owner("v1", "Gadget", "d", ANYBODY)])),
        ("answered", json!([owner("authorization.k8s.io/v1", "SubjectAccessReview", "d", ANYBODY)])),
        ("two", json!([foo(), owner("v1", "Secret", "gone", "other-uid")])),
    ] {
        cluster.create(map("default", name, owners)).await;
    }
    cluster.create(map("default", "served", json!([owner("bug.io/v1", "Gizmo", "none", ANYBODY)]))).await;
    cluster.settle().await;
    for name in ["foo", "version", "other-version", "old", "core", "answered", "two"] {
        assert!(is_there(&cluster, name), "{name}");
    }
    let two: ConfigMap = cluster.get("default", "two").unwrap();
    assert_eq!(two.metadata.owner_references.unwrap().len(), 2);
    assert!(!is_there(&cluster, "served"), "of a kind that is served it is known that there is none");

    // Once it is served, it can be judged.
    let versions = json!({"spec": {"versions": [
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let kind = "CustomResourceDefinition";
    cluster.patch("apiextensions.k8s.io/v1", kind, "", "gizmos.bug.io", "", versions).await.unwrap();
    cluster.settle().await;
    assert!(is_there(&cluster, "version"), "its owner is there, in whatever version");
    assert!(!is_there(&cluster, "other-version"));
    cluster.delete("bug.io/v1", "Gizmo", "default", "live", Delete::default()).await;
    cluster.settle().await;
    assert!(!is_there(&cluster, "version"));
    assert!(is_there(&cluster, "foo"));
}

#[tokio::test]
async fn what_was_made_before_its_owners_definition_waits_for_it() {
    let mut cluster = Cluster::new(&[]).await;
    cluster.create(map("default", "early", json!([owner("bug.io/v1", "Gizmo", "g", ANYBODY)]))).await;
    cluster.settle().await;
    assert!(is_there(&cluster, "early"));
    define(&cluster, &[("v1", true)]).await;
    cluster.settle().await;
    assert!(!is_there(&cluster, "early"), "now it is known that its owner isn't there");
}

#[tokio::test]
async fn what_another_server_owns_stays_whether_that_answers_or_not() {
    let mut cluster = Cluster::new(&[]).await;
    cluster
        .create(json!({
            "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {"name": "v1.bug.io"},
            "spec": {"group": "bug.io", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "s", "port": 443}},
        }))
        .await;
    define(&cluster, &[("v1", true)]).await;
    cluster.create(map("default", "child", json!([owner("bug.io/v1", "Gizmo", "g", ANYBODY)]))).await;
    cluster.settle().await;
    assert!(is_there(&cluster, "child"));
    for status in ["True", "False"] {
        let status = json!({"status": {"conditions": [cluster.condition("Available", status)]}});
        let version = "apiregistration.k8s.io/v1";
        cluster.patch(version, "APIService", "", "v1.bug.io", "status", status).await.unwrap();
        cluster.settle().await;
        assert!(is_there(&cluster, "child"));
    }
    let version = "apiregistration.k8s.io/v1";
    cluster.delete(version, "APIService", "", "v1.bug.io", Delete::default()).await;
    cluster.settle().await;
    assert!(!is_there(&cluster, "child"), "the group is served here again");
}

#[tokio::test]
async fn what_was_seen_to_go_is_gone_even_if_its_definition_went_with_it() {
    let mut cluster = Cluster::new(&[]).await;
    define(&cluster, &[("v1", true)]).await;
    let uid = gizmo(&cluster, "g").await;
    cluster.create(map("default", "child", json!([owner("bug.io/v1", "Gizmo", "g", &uid)]))).await;
    cluster.settle().await;
    assert!(is_there(&cluster, "child"));
    cluster.delete("bug.io/v1", "Gizmo", "default", "g", Delete::default()).await;
    let kind = "CustomResourceDefinition";
    cluster.delete("apiextensions.k8s.io/v1", kind, "", "gizmos.bug.io", Delete::default()).await;
    let bare = json!({"metadata": {"finalizers": null}});
    cluster.patch("apiextensions.k8s.io/v1", kind, "", "gizmos.bug.io", "", bare).await.unwrap();
    cluster.settle().await;
    assert!(!is_there(&cluster, "child"));
}

#[tokio::test]
async fn in_the_foreground_only_dependents_that_block_are_waited_for() {
    let mut cluster = Cluster::new(&[]).await;
    let real = cluster.create(map("default", "real", json!([]))).await;
    for (name, blocks) in [("blocks", true), ("lazy", false)] {
        let mut reference = owner("v1", "ConfigMap", "real", real.uid());
        reference["blockOwnerDeletion"] = blocks.into();
        let mut child = map("default", name, json!([reference]));
        child["metadata"]["finalizers"] = json!(["ex.io/hold"]);
        cluster.create(child).await;
    }
    // A cluster-scoped object that names it is no dependent: it holds nothing up.
    let mut reference = owner("v1", "ConfigMap", "real", real.uid());
    reference["blockOwnerDeletion"] = true.into();
    cluster
        .create(json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "rules": [],
            "metadata": {"name": "role", "ownerReferences": [reference]}}))
        .await;
    let foreground = Delete { propagation: Some(Propagation::Foreground), ..Delete::default() };
    cluster.delete("v1", "ConfigMap", "default", "real", foreground).await;
    cluster.settle().await;
    assert!(is_there(&cluster, "real"));
    let release = json!({"metadata": {"finalizers": null}});
    cluster.patch("v1", "ConfigMap", "default", "blocks", "", release).await.unwrap();
    cluster.settle().await;
    assert!(!is_there(&cluster, "real"));
    let lazy: ConfigMap = cluster.get("default", "lazy").unwrap();
    assert!(lazy.metadata.deletion_timestamp.is_some(), "it goes, and nobody waits for it");
    assert!(cluster.get::<ClusterRole>("", "role").is_some());
}

#[tokio::test]
async fn those_that_own_each_other_go_in_the_foreground_too() {
    let mut cluster = Cluster::new(&[]).await;
    let first = cluster.create(map("default", "first", json!([]))).await;
    let mut of_first = owner("v1", "ConfigMap", "first", first.uid());
    of_first["blockOwnerDeletion"] = true.into();
    let second = cluster.create(map("default", "second", json!([of_first]))).await;
    let mut of_second = owner("v1", "ConfigMap", "second", second.uid());
    of_second["blockOwnerDeletion"] = true.into();
    let own = cluster.create(map("default", "own", json!([]))).await;
    let mut itself = owner("v1", "ConfigMap", "own", own.uid());
    itself["blockOwnerDeletion"] = true.into();
    for (name, reference) in [("first", of_second), ("own", itself)] {
        let patch = json!({"metadata": {"ownerReferences": [reference]}});
        cluster.patch("v1", "ConfigMap", "default", name, "", patch).await.unwrap();
    }
    cluster.settle().await;
    let foreground = Delete { propagation: Some(Propagation::Foreground), ..Delete::default() };
    for name in ["first", "own"] {
        cluster.delete("v1", "ConfigMap", "default", name, foreground.clone()).await;
    }
    cluster.settle().await;
    for name in ["first", "second", "own"] {
        assert!(!is_there(&cluster, name), "{name}");
    }
}
