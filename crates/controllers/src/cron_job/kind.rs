//! What controllers read of CronJobs, and nothing else of them: not the Jobs that they make.

use k8s_openapi::api::batch::v1::CronJobStatus;
use serde::Deserialize;

use crate::kept::Kept;

/// A CronJob (batch/v1).
pub(crate) type CronJob = Kept<CronJobSpec, CronJobStatus>;

objects::thin_kind!(CronJob, k8s_openapi::api::batch::v1::CronJob);

/// What a CronJob asks for. Fields have the API's names and forms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CronJobSpec {
    pub schedule: String,
    pub time_zone: Option<String>,
    pub starting_deadline_seconds: Option<i64>,
    pub concurrency_policy: Option<String>,
    pub suspend: Option<bool>,
    pub successful_jobs_history_limit: Option<i32>,
    pub failed_jobs_history_limit: Option<i32>,
}
