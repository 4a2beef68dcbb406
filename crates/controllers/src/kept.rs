//! What controllers read of Deployments, ReplicaSets, ReplicationControllers and Nodes, and of those in the modules below,
//! and nothing else of them.
//!
//! Every host keeps all of them in memory. Most of a Deployment is its pod template, which its ReplicaSets have once
//! more each: of that, labels and a fingerprint are kept, and what needs all of it reads the stored JSON. Fields have the
//! API's names and forms.

mod daemon_set;
mod revision;
mod stateful_set;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DeploymentStatus, DeploymentStrategy, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{AttachedVolume, NodeAddress, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use objects::{Annotations, Labels, Metadata, shared_labels};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

use crate::template;
pub(crate) use daemon_set::{DaemonSet, DaemonSetSpec, Placement};
pub(crate) use revision::ControllerRevision;
pub(crate) use stateful_set::{StatefulSet, StatefulSetSpec};

/// The annotation with the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Deployment (apps/v1).
pub(crate) type Deployment = Kept<DeploymentSpec, DeploymentStatus>;
/// A ReplicaSet (apps/v1).
pub(crate) type ReplicaSet = Kept<ReplicaSetSpec, ReplicaSetStatus>;
/// A ReplicationController (core/v1).
pub(crate) type ReplicationController = Kept<ReplicationControllerSpec, ReplicaSetStatus>;
/// A Node (core/v1).
pub(crate) type Node = Kept<NodeSpec, NodeStatus>;

/// An object with what is kept of its spec and its status.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "Spec: DeserializeOwned, Status: DeserializeOwned")]
pub(crate) struct Kept<Spec, Status> {
    /// Its metadata, without what its managers say and without [`LAST_APPLIED`].
    #[serde(default, deserialize_with = "objects::metadata::<_, AllButLastApplied>")]
    pub metadata: Metadata,
    /// What it asks for.
    #[serde(default = "none")]
    pub spec: Option<Spec>,
    /// Its status.
    #[serde(default = "none")]
    pub status: Option<Status>,
}

fn none<T>() -> Option<T> {
    None
}

/// What a Deployment asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub selector: LabelSelector,
    pub template: Template,
    pub strategy: Option<DeploymentStrategy>,
    pub min_ready_seconds: Option<i32>,
    pub paused: Option<bool>,
    pub progress_deadline_seconds: Option<i32>,
    pub revision_history_limit: Option<i32>,
}

/// What a ReplicaSet asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ReplicaSetSpec {
    pub replicas: Option<i32>,
    pub min_ready_seconds: Option<i32>,
    pub selector: LabelSelector,
    pub template: Template,
}

/// What a ReplicationController asks for: as a ReplicaSet, with a selector of labels alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplicationControllerSpec(pub ReplicaSetSpec);

impl<'de> Deserialize<'de> for ReplicationControllerSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stored {
            replicas: Option<i32>,
            min_ready_seconds: Option<i32>,
            selector: Option<BTreeMap<String, String>>,
            #[serde(default)]
            template: Template,
        }
        let Stored { replicas, min_ready_seconds, selector, template } = Stored::deserialize(from)?;
        let selector = LabelSelector { match_labels: selector, match_expressions: None };
        Ok(ReplicationControllerSpec(ReplicaSetSpec { replicas, min_ready_seconds, selector, template }))
    }
}

/// A pod template: what pods of it have in common, and what tells it from others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Template {
    /// The labels of its pods.
    pub labels: Arc<Labels>,
    /// Two templates with the same one are the same. (That two others had it by chance, one in 2^64 would.)
    pub fingerprint: u64,
}

impl Template {
    /// What is kept of a template as it is stored.
    pub fn of(whole: &Value) -> Self {
        let labels = whole.pointer("/metadata/labels").map(Labels::deserialize);
        // The text of a value has its fields in order.
        let mut hasher = DefaultHasher::new();
        hasher.write(template::normalised(whole).to_string().as_bytes());
        Template {
            labels: shared_labels(labels.and_then(Result::ok).unwrap_or_default()),
            fingerprint: hasher.finish(),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from).map(|whole| Template::of(&whole))
    }
}

/// What is asked of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeSpec {
    pub taints: Option<Vec<Taint>>,
    pub unschedulable: Option<bool>,
}

/// What a Node's agent says of it; not which images it has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeStatus {
    pub addresses: Option<Vec<NodeAddress>>,
    pub conditions: Option<Vec<NodeCondition>>,
    pub allocatable: Option<Allocatable>,
    pub volumes_in_use: Option<Vec<String>>,
    pub volumes_attached: Option<Vec<AttachedVolume>>,
}

/// What a Node's pods may use, as far as it is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Allocatable {
    pub cpu: Option<Quantity>,
}

objects::thin_kind!(Deployment, k8s_openapi::api::apps::v1::Deployment);
objects::thin_kind!(ReplicaSet, k8s_openapi::api::apps::v1::ReplicaSet);
objects::thin_kind!(ReplicationController, k8s_openapi::api::core::v1::ReplicationController);
objects::thin_kind!(Node, k8s_openapi::api::core::v1::Node);

/// All annotations but [`LAST_APPLIED`].
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct AllButLastApplied(BTreeMap<String, String>);

impl Annotations for AllButLastApplied {
    fn kept(mut self) -> Option<BTreeMap<String, String>> {
        self.0.remove(LAST_APPLIED);
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(template: Value) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {
                "name": "a", "annotations": {(LAST_APPLIED): "{}", "deployment.kubernetes.io/revision": "3"},
                "managedFields": [{"manager": "m", "operation": "Update"}],
            },
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template},
            "status": {"replicas": 1},
        }))
        .unwrap()
    }

    #[test]
    fn templates_are_told_apart_without_being_kept() {
        let template = |image: &str, hash: Value| {
            json!({
                "metadata": {"labels": {"app": "a", "pod-template-hash": hash}, "creationTimestamp": null},
                "spec": {"containers": [{"name": "c", "image": image}]},
            })
        };
        let of = |template: Value| set(template).spec.unwrap().template;
        let one = of(template("a:1", "x".into()));
        assert_eq!(
            *one.labels,
            Labels::from([("app".into(), "a".into()), ("pod-template-hash".into(), "x".into())])
        );
        assert_eq!(
            one.fingerprint,
            of(template("a:1", "y".into())).fingerprint,
            "the label makes no other one"
        );
        assert_ne!(one.fingerprint, of(template("a:2", "x".into())).fingerprint);
    }

    #[test]
    fn what_is_read_is_kept_and_nothing_else() {
        let set = set(json!({}));
        let annotations: Vec<_> = set.metadata.annotations.as_ref().unwrap().keys().collect();
        assert_eq!(annotations, ["deployment.kubernetes.io/revision"]);
        assert_eq!(set.status.unwrap().replicas, 1);
        let empty: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": null}})).unwrap();
        assert!(empty.spec.is_none() && empty.status.is_none() && empty.metadata.labels.is_none());
        let whole = size_of::<k8s_openapi::api::apps::v1::ReplicaSet>();
        assert!(size_of::<ReplicaSet>() * 2 < whole, "{} of {whole} bytes", size_of::<ReplicaSet>());
    }
}
