//! `flowcontrol.apiserver.k8s.io`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::flowcontrol;
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[
    Resource {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        kind: "FlowSchema",
        plural: "flowschemas",
        singular: "flowschema",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: ALL,
        subresources: &[Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "FlowSchema",
            verbs: PARTLY,
        }],
        storage_version_hash: "GJVAJZSZBIw=",
        keeps_generation: true,
        schema: published("io.k8s.api.flowcontrol.v1.FlowSchema"),
        rules: &flowcontrol::FlowSchema,
        custom: None,
    },
    Resource {
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        singular: "prioritylevelconfiguration",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: ALL,
        subresources: &[Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "PriorityLevelConfiguration",
            verbs: PARTLY,
        }],
        storage_version_hash: "Kir5PVfvNeI=",
        keeps_generation: true,
        schema: published("io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration"),
        rules: &flowcontrol::PriorityLevelConfiguration,
        custom: None,
    },
];
