//! `scheduling.k8s.io`.

use machinery::Resource;

use super::ALL;
use crate::kinds::priority_class;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    namespaced: false,
    short_names: &["pc"],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage_version_hash: "1QwjyaZjj3Y=",
    keeps_generation: true,
    schema: published("io.k8s.api.scheduling.v1.PriorityClass"),
    rules: &priority_class::PriorityClass,
    custom: None,
}];
