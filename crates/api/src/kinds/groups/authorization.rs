//! `authorization.k8s.io`: questions, which are answered and not kept.

use machinery::Resource;
use machinery::rules::Plain;

use crate::schemas::published;

const CREATE: &[&str] = &["create"];

pub(super) static RESOURCES: &[Resource] = &[
    Resource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authorization.v1.LocalSubjectAccessReview"),
        rules: &Plain,
        custom: None,
    },
    Resource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authorization.v1.SelfSubjectAccessReview"),
        rules: &Plain,
        custom: None,
    },
    Resource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authorization.v1.SelfSubjectRulesReview"),
        rules: &Plain,
        custom: None,
    },
    Resource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        namespaced: false,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: &[],
        storage_version_hash: "",
        keeps_generation: false,
        schema: published("io.k8s.api.authorization.v1.SubjectAccessReview"),
        rules: &Plain,
        custom: None,
    },
];
