//! `autoscaling`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::autoscaler;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[
    Resource {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        namespaced: true,
        short_names: &["hpa"],
        categories: &["all"],
        verbs: ALL,
        subresources: &[Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "HorizontalPodAutoscaler",
            verbs: PARTLY,
        }],
        storage_version_hash: "qwQve8ut294=",
        keeps_generation: false,
        schema: published("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
        rules: &autoscaler::Autoscaler,
        custom: None,
    },
    Resource {
        group: "autoscaling",
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        namespaced: true,
        short_names: &["hpa"],
        categories: &["all"],
        verbs: ALL,
        subresources: &[Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "HorizontalPodAutoscaler",
            verbs: PARTLY,
        }],
        storage_version_hash: "qwQve8ut294=",
        keeps_generation: false,
        schema: published("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"),
        rules: &autoscaler::FirstAutoscaler,
        custom: None,
    },
];
