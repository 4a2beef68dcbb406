//! `apiextensions.k8s.io`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::apiextensions;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    namespaced: false,
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    verbs: ALL,
    subresources: &[Subresource {
        name: "status",
        group: "",
        version: "",
        kind: "CustomResourceDefinition",
        verbs: PARTLY,
    }],
    storage_version_hash: "jfWCUB31mvA=",
    keeps_generation: true,
    schema: published("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"),
    rules: &apiextensions::CustomResourceDefinition,
    custom: None,
}];
