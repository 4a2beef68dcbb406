//! How many Jobs that are over a CronJob keeps.

use std::sync::Arc;

use objects::{Delete, Occurrence, Propagation, TypedRef, Write};

use super::Round;
use super::kind::CronJob;
use crate::job::{Job, end};
use crate::plan::{Action, Note, Plan};

/// Deletes the oldest of those that are over, beyond how many are to be kept.
pub(super) fn clean_up(round: &Round<'_>, plan: &mut Plan) {
    let limits = [
        ("Complete", round.spec.successful_jobs_history_limit),
        ("Failed", round.spec.failed_jobs_history_limit),
    ];
    for (kind, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let is_over = |job: &&&Arc<Job>| {
            job.metadata.deletion_timestamp.is_none() && end(job).is_some_and(|end| end.type_ == kind)
        };
        let mut over: Vec<&Arc<Job>> = round.jobs.iter().filter(is_over).copied().collect();
        // One that never began is the newest.
        over.sort_by_key(|job| {
            let since = job.status.as_ref().and_then(|status| status.start_time.clone());
            (since.is_none(), since, job.metadata.name.clone())
        });
        let surplus = over.len().saturating_sub(limit);
        plan.actions.extend(over.into_iter().take(surplus).map(|job| deletion(round.cron, job)));
    }
}

/// Deletes a Job, and with it its pods.
pub(super) fn deletion(cron: &CronJob, job: &Job) -> Action {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let options = Delete {
        uid: job.metadata.uid.clone(),
        propagation: Some(Propagation::Background),
        ..Delete::default()
    };
    let told = Occurrence::of(cron, false, "SuccessfulDelete", format!("Deleted job {name}"));
    let mut action =
        Action::from(Write::Delete { subject: TypedRef::of(job), options }).telling(Note::Event(told));
    action.refused = Some(Occurrence::of(cron, true, "FailedDelete", "Deleted job: {}".to_owned()));
    action
}
