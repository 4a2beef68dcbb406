//! What placements read of a node, and nothing else of it: with thousands of nodes the API's own struct would be most of
//! what the scheduler takes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use objects::{Metadata, NoAnnotations};
use serde::{Deserialize, Deserializer};

use crate::image::Images;

/// A node. Fields have the API's names and forms (core/v1 Node).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its metadata, without what its managers say and without annotations.
    #[serde(deserialize_with = "objects::metadata::<_, NoAnnotations>")]
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
}

objects::thin_kind!(Node, k8s_openapi::api::core::v1::Node);

fn ready<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Condition>, D::Error> {
    let conditions = Option::<Vec<Condition>>::deserialize(from)?;
    Ok(conditions.into_iter().flatten().find(|condition| condition.kind == "Ready"))
}
