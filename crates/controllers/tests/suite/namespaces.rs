//! Namespaces that are being deleted say what they wait for.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use objects::Delete;
use serde_json::{Value, json};

/// Status, reason and message of each condition.
fn conditions(cluster: &Cluster, name: &str) -> Vec<[String; 4]> {
    let namespace: Namespace = cluster.get("", name).unwrap();
    let conditions = namespace.status.unwrap().conditions.unwrap_or_default();
    let text = |text: Option<String>| text.unwrap_or_default();
    conditions.into_iter().map(|c| [c.type_, c.status, text(c.reason), text(c.message)]).collect()
}

async fn shop(cluster: &mut Cluster, finalizers: &[(&str, &[&str])]) {
    cluster.create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})).await;
    for (name, finalizers) in finalizers {
        let metadata = json!({"name": name, "namespace": "shop", "finalizers": finalizers});
        cluster.create(json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata})).await;
    }
    cluster.settle().await;
}

async fn release(cluster: &Cluster, name: &str) {
    let patch = json!({"metadata": {"finalizers": null}});
    cluster.patch("v1", "ConfigMap", "shop", name, "", patch).await.unwrap();
}

async fn service(cluster: &Cluster, available: &str) {
    let version = "apiregistration.k8s.io/v1";
    if available == "False" {
        cluster
            .create(json!({
                "kind": "APIService", "apiVersion": version, "metadata": {"name": "v1.bug.io"},
                "spec": {"group": "bug.io", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10,
                    "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "s"}},
            }))
            .await;
    }
    let status = json!({"status": {"conditions": [cluster.condition("Available", available)]}});
    cluster.patch(version, "APIService", "", "v1.bug.io", "status", status).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_can_t_go_says_why() {
    let mut cluster = Cluster::new(&[]).await;
    shop(&mut cluster, &[("f", &["ex.io/a"]), ("g", &["ex.io/a", "ex.io/b"]), ("h", &[])]).await;
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(conditions(&cluster, "shop").len(), 0, "what goes at once needs no explanation");
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    let expected = [
        [
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ],
        [
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ],
        [
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ],
        [
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 2 resource instances",
        ],
        [
            "NamespaceFinalizersRemaining",
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: ex.io/a in 2 resource instances, ex.io/b in 1 \
             resource instances",
        ],
    ];
    assert_eq!(conditions(&cluster, "shop"), expected.map(|condition| condition.map(str::to_owned)));

    release(&cluster, "g").await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    let now = conditions(&cluster, "shop");
    assert!(now[3][3].ends_with("configmaps. has 1 resource instances"), "{now:?}");
    release(&cluster, "f").await;
    cluster.settle().await;
    assert!(cluster.get::<Namespace>("", "shop").is_none());
}

#[tokio::test]
async fn while_another_server_does_not_answer_no_namespace_goes() {
    let mut cluster = Cluster::new(&[]).await;
    shop(&mut cluster, &[("f", &[])]).await;
    service(&cluster, "False").await;
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    assert!(cluster.get::<ConfigMap>("shop", "f").is_none(), "all else goes");
    let now = conditions(&cluster, "shop");
    let message = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                   bug.io/v1: stale GroupVersion discovery: bug.io/v1";
    let failing = ["NamespaceDeletionDiscoveryFailure", "True", "DiscoveryFailed", message];
    assert_eq!(now[0], failing.map(str::to_owned));
    assert!(now[1..].iter().all(|condition| condition[1] == "False"), "{now:?}");
    service(&cluster, "True").await;
    cluster.settle().await;
    assert!(cluster.get::<Namespace>("", "shop").is_none());
}

#[tokio::test]
async fn what_may_not_be_deleted_is_named_until_it_is() {
    let mut cluster = Cluster::new(&[]).await;
    shop(&mut cluster, &[("f", &[])]).await;
    let policy = |metadata: Value, spec: Value, kind: &str| json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata, "spec": spec});
    let rule = json!({"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "oldObject.metadata.name != 'f'", "message": "f is dear to me"}]});
    cluster.create(policy(json!({"name": "p"}), spec, "ValidatingAdmissionPolicy")).await;
    let spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    cluster.create(policy(json!({"name": "b"}), spec, "ValidatingAdmissionPolicyBinding")).await;
    cluster.settle().await;
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    let find = |cluster: &Cluster| {
        let all = conditions(cluster, "shop");
        all.into_iter().find(|condition| condition[0] == "NamespaceDeletionContentFailure").unwrap()
    };
    let [_, status, reason, message] = find(&cluster);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ContentDeletionFailed"));
    assert!(message.starts_with("Failed to delete all resource types, 1 remaining: "), "{message}");
    assert!(message.contains("f is dear to me"), "{message}");
    assert_eq!(conditions(&cluster, "shop").len(), 5);

    let group = "admissionregistration.k8s.io/v1";
    cluster.delete(group, "ValidatingAdmissionPolicyBinding", "", "b", Delete::default()).await;
    cluster.pass(Duration::from_secs(40));
    cluster.settle().await;
    assert!(cluster.get::<Namespace>("", "shop").is_none());
}
