//! What controllers read of DaemonSets.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::api::core::v1::{NodeAffinity, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use super::{Kept, Template};

/// A DaemonSet (apps/v1).
pub(crate) type DaemonSet = Kept<DaemonSetSpec, DaemonSetStatus>;

objects::thin_kind!(DaemonSet, k8s_openapi::api::apps::v1::DaemonSet);

/// What a DaemonSet asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DaemonSetSpec {
    pub selector: LabelSelector,
    pub template: PlacedTemplate,
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    pub min_ready_seconds: Option<i32>,
    pub revision_history_limit: Option<i32>,
}

/// A template of pods with what says on which hosts they run.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlacedTemplate {
    pub kept: Template,
    pub placement: Placement,
}

/// What of a pod's spec says on which hosts it runs. Fields have the API's names and forms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Placement {
    pub node_name: Option<String>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<ToNodes>,
    pub tolerations: Option<Vec<Toleration>>,
    pub host_network: Option<bool>,
}

/// The affinity to nodes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ToNodes {
    pub node_affinity: Option<NodeAffinity>,
}

impl<'de> Deserialize<'de> for PlacedTemplate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let whole = Value::deserialize(from)?;
        let placement =
            whole.get("spec").map(Placement::deserialize).transpose().map_err(D::Error::custom)?;
        Ok(PlacedTemplate { kept: Template::of(&whole), placement: placement.unwrap_or_default() })
    }
}
