//! `coordination.k8s.io`.

use machinery::Resource;

use super::ALL;
use crate::kinds::lease;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage_version_hash: "gqkMMb/YqFM=",
    keeps_generation: false,
    schema: published("io.k8s.api.coordination.v1.Lease"),
    rules: &lease::Lease,
    custom: None,
}];
