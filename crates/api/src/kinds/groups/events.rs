//! `events.k8s.io`.

use machinery::Resource;

use super::ALL;
use crate::kinds::newer_event;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[Resource {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    namespaced: true,
    short_names: &["ev"],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage_version_hash: "r2yiGXH7wu8=",
    keeps_generation: false,
    schema: published("io.k8s.api.events.v1.Event"),
    rules: &newer_event::NewerEvent,
    custom: None,
}];
