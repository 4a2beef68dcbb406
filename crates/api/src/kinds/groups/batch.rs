//! `batch`.

use machinery::{Resource, Subresource};

use super::{ALL, PARTLY};
use crate::kinds::{cron_job, job};
use crate::schemas::published;

pub(super) static RESOURCES: &[Resource] = &[
    Resource {
        group: "batch",
        version: "v1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        namespaced: true,
        short_names: &["cj"],
        categories: &["all"],
        verbs: ALL,
        subresources: &[Subresource {
            name: "status",
            group: "",
            version: "",
            kind: "CronJob",
            verbs: PARTLY,
        }],
        storage_version_hash: "sd5LIXh4Fjs=",
        keeps_generation: true,
        schema: published("io.k8s.api.batch.v1.CronJob"),
        rules: &cron_job::CronJob,
        custom: None,
    },
    Resource {
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
        schema: published("io.k8s.api.batch.v1.Job"),
        rules: &job::Job,
        custom: None,
    },
];
