//! `apiregistration.k8s.io`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::api_service;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    namespaced: false,
    short_names: &[],
    categories: &["api-extensions"],
    verbs: ALL,
    subresources: &[Subresource {
        name: "status",
        group: "",
        version: "",
        kind: "APIService",
        verbs: PARTLY,
    }],
    storage_version_hash: "InPBPD7+PqM=",
    keeps_generation: false,
    schema: published("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"),
    rules: &api_service::ApiService,
    custom: None,
}];
