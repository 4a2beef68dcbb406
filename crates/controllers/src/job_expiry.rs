//! Jobs that are over are deleted after the time that they name: `pkg/controller/ttlafterfinished` (KEP-592).

use std::time::Duration;

use jiff::Timestamp;
use objects::{Delete, Meta, Propagation, TypedRef, Write};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::job::{Job, end};
use crate::key::Key;
use crate::plan::Plan;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Deletes Jobs that are over.
pub(crate) struct FinishedJobs;

impl Controller for FinishedJobs {
    fn name(&self) -> &'static str {
        "finished-jobs"
    }

    fn component(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Job>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Job>().iter().filter(|job| expires_at(job).is_some()));
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        let job = change.of::<Job>().and_then(|change| change.new.as_ref());
        due.objects(job.filter(|job| expires_at(job).is_some()));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = view.table::<Job>().get(key.namespace(), key.name()) else { return plan };
        let Some(end) = expires_at(job) else { return plan };
        let left = Duration::try_from(end.duration_since(moment.now.wall)).unwrap_or_default();
        if !left.is_zero() {
            plan.again(left);
            return plan;
        }
        let options = Delete {
            uid: job.metadata.uid.clone(),
            // Unless it was given more time meanwhile.
            resource_version: job.metadata.resource_version(),
            propagation: Some(Propagation::Foreground),
            ..Delete::default()
        };
        plan.write(Write::Delete { subject: TypedRef::of(job.as_ref()), options });
        plan
    }
}

/// When a Job is to be deleted; nothing if it isn't over, names no time, or is being deleted.
fn expires_at(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let since = end(job)?.last_transition_time.as_ref()?.0;
    since.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))).ok()
}
