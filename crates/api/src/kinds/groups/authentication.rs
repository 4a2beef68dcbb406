//! `authentication.k8s.io`: questions, which are answered and not kept.

use machinery::Resource;
use machinery::rules::Plain;

use crate::schemas::published;

const CREATE: &[&str] = &["create"];

pub(super) static RESOURCES: &[Resource] = &[
    Resource {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authentication.v1.SelfSubjectReview"),
        rules: &Plain,
        custom: None,
    },
    Resource {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authentication.v1.TokenReview"),
        rules: &Plain,
        custom: None,
    },
];
