//! `policy`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::pod_disruption_budget;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    namespaced: true,
    short_names: &["pdb"],
    categories: &[],
    verbs: ALL,
    subresources: &[Subresource {
        name: "status",
        group: "",
        version: "",
        kind: "PodDisruptionBudget",
        verbs: PARTLY,
    }],
    storage_version_hash: "EVWiDmWqyJw=",
    keeps_generation: true,
    schema: published("io.k8s.api.policy.v1.PodDisruptionBudget"),
    rules: &pod_disruption_budget::PodDisruptionBudget,
    custom: None,
}];
