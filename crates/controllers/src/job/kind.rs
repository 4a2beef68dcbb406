//! What controllers read of Jobs, and nothing else of them: of the pod template, whether its pods are restarted.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, PodFailurePolicy, SuccessPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::kept::Kept;

/// The controller of Jobs that name no other (KEP-4368).
const OURS: &str = "kubernetes.io/job-controller";

/// A Job (batch/v1).
pub(crate) type Job = Kept<JobSpec, JobStatus>;

objects::thin_kind!(Job, k8s_openapi::api::batch::v1::Job);

/// What a Job asks for. Fields have the API's names and forms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct JobSpec {
    pub parallelism: Option<i32>,
    pub completions: Option<i32>,
    pub completion_mode: Option<String>,
    pub backoff_limit: Option<i32>,
    pub backoff_limit_per_index: Option<i32>,
    pub max_failed_indexes: Option<i32>,
    pub active_deadline_seconds: Option<i64>,
    pub ttl_seconds_after_finished: Option<i32>,
    pub suspend: Option<bool>,
    pub pod_replacement_policy: Option<String>,
    pub managed_by: Option<String>,
    pub pod_failure_policy: Option<PodFailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
    pub selector: LabelSelector,
    pub template: JobTemplate,
}

/// What is read of a Job's pod template.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JobTemplate {
    spec: JobPodSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobPodSpec {
    restart_policy: Option<String>,
}

impl JobSpec {
    /// How many indexes there are, if its pods complete one each.
    pub fn indexes(&self) -> Option<i32> {
        (self.completion_mode.as_deref() == Some("Indexed")).then(|| self.completions.unwrap_or(0))
    }

    /// How many pods may run at a time.
    pub fn parallelism(&self) -> i32 {
        self.parallelism.unwrap_or(1)
    }

    /// How many pods may fail.
    pub fn backoff_limit(&self) -> i32 {
        self.backoff_limit.unwrap_or(6)
    }

    /// Whether no pod of it shall run.
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }

    /// Whether a pod is replaced, and counts as failed, only once it has failed, and not when it is deleted (KEP-3939).
    pub fn replaces_failed_only(&self) -> bool {
        self.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Whether containers of its pods are restarted in place.
    pub fn restarts_in_place(&self) -> bool {
        self.template.spec.restart_policy.as_deref() == Some("OnFailure")
    }

    /// Whether another controller looks after it.
    pub fn is_of_another(&self) -> bool {
        self.managed_by.as_deref().is_some_and(|by| by != OURS)
    }
}

/// A condition of the Job that holds.
pub(crate) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition that says that the Job is over, and how it ended.
pub(crate) fn end(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    condition(status, "Complete").or_else(|| condition(status, "Failed"))
}
