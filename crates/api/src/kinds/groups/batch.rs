//! `batch`.

use super::{ALL, PARTLY};
use crate::kinds::Plain;
use crate::resource::{Resource, Subresource};

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    namespaced: true,
    short_names: &[],
    categories: &["all"],
    verbs: ALL,
    subresources: &[Subresource { name: "status", group: "", version: "", kind: "Job", verbs: PARTLY }],
    storage_version_hash: "mudhfqk/qZY=",
    keeps_generation: true,
    schema: "io.k8s.api.batch.v1.Job",
    rules: &Plain,
}];
