//! What placements read of a node, and nothing else of it: with thousands of nodes the API's own struct would be most of
//! what the scheduler takes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use objects::{Annotations, Labels, Metadata, VOLUMES};
use serde::{Deserialize, Deserializer};

use crate::image::Images;

/// A node. Fields have the API's names and forms (core/v1 Node).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its metadata, without what its managers say; of its annotations, the one that says where it makes volumes.
    #[serde(deserialize_with = "objects::metadata::<_, Folders>")]
    pub metadata: Metadata,
    /// Its taints, and whether it is cordoned.
    pub spec: NodeSpec,
    /// What it has, and whether it is ready.
    pub status: NodeStatus,
}

/// Taints and cordon.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Its taints.
    pub taints: Option<Vec<Taint>>,
    /// Whether it is cordoned.
    pub unschedulable: Option<bool>,
}

/// Resources and readiness.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// What pods may use.
    pub allocatable: Option<BTreeMap<String, Quantity>>,
    /// What it has, which counts where it doesn't say what pods may use.
    pub capacity: Option<BTreeMap<String, Quantity>>,
    /// Its condition `Ready`; the others are left out.
    #[serde(deserialize_with = "ready")]
    pub conditions: Option<Condition>,
    /// The images that it has.
    pub(crate) images: Images,
}

/// A condition's type and status. Times are left out, so that a sign of life is no change.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether its agent makes folders for volumes of the class `holdfast.dev/local-path`.
    pub(crate) fn makes_folders(&self) -> bool {
        self.metadata.annotations.is_some()
    }

    /// Whether the same pods can be on it as on another version of it: a report of images, or of what isn't read here, helps no
    /// pod.
    pub(crate) fn takes_the_same(&self, other: &Node) -> bool {
        let (ours, theirs) = (&self.metadata, &other.metadata);
        ours.name == theirs.name
            && ours.labels == theirs.labels
            && ours.annotations == theirs.annotations
            && ours.deletion_timestamp == theirs.deletion_timestamp
            && self.spec == other.spec
            && self.status.allocatable == other.status.allocatable
            && self.status.capacity == other.status.capacity
            && self.status.conditions == other.status.conditions
    }
}

/// Whether a node says where it makes volumes.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Folders(Labels);

impl Annotations for Folders {
    fn kept(mut self) -> Option<Labels> {
        self.0.retain(|name, _| name == VOLUMES);
        (!self.0.is_empty()).then_some(self.0)
    }
}

objects::thin_kind!(Node, k8s_openapi::api::core::v1::Node);

fn ready<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Condition>, D::Error> {
    let conditions = Option::<Vec<Condition>>::deserialize(from)?;
    Ok(conditions.into_iter().flatten().find(|condition| condition.kind == "Ready"))
}
