//! `node.k8s.io`.

use machinery::Resource;

use super::ALL;
use crate::kinds::runtime_class;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    short_names: &[],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage_version_hash: "WQTu1GL3T2Q=",
    keeps_generation: false,
    schema: published("io.k8s.api.node.v1.RuntimeClass"),
    rules: &runtime_class::RuntimeClass,
    custom: None,
}];
