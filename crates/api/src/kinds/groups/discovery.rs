//! `discovery.k8s.io`.

use machinery::Resource;

use super::ALL;
use crate::kinds::endpoint_slice;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage_version_hash: "qgS0xkrxYAI=",
    keeps_generation: true,
    schema: published("io.k8s.api.discovery.v1.EndpointSlice"),
    rules: &endpoint_slice::EndpointSlice,
    custom: None,
}];
