//! What a Job's status says: its numbers, and its conditions in upstream's order and words.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::Occurrence;
use serde_json::{Map, Value, json};

use super::members::Member;
use super::outcome::{FAILS, Outcome, SUCCEEDS};
use super::round::Round;
use crate::plan::{Action, Note, Plan, difference, merge_this};
use crate::pods;

/// Whether the Job is suspended, and since when it runs again.
pub(super) fn suspension(round: &mut Round<'_>, told: &mut Vec<Occurrence>) {
    let (status, reason, message, event) = match round.spec.is_suspended() {
        true => ("True", "JobSuspended", "Job suspended", "Suspended"),
        false => ("False", "JobResumed", "Job resumed", "Resumed"),
    };
    if !ensure(&mut round.status, "Suspended", status, reason, message, round.now) {
        return;
    }
    told.push(Occurrence::of(round.job, false, event, message.to_owned()));
    if status == "False" {
        // Its deadline counts from now on.
        round.status.start_time = Some(Time(round.now));
    }
}

/// Says how the Job will have ended, and once nothing is left of it, how it has.
pub(super) fn end(round: &mut Round<'_>, told: &mut Vec<Occurrence>) {
    let Some(Outcome { succeeded, reason, message, is_said }) = round.outcome.clone() else { return };
    if !is_said {
        let kind = if succeeded { SUCCEEDS } else { FAILS };
        ensure(&mut round.status, kind, "True", &reason, &message, round.now);
        return;
    }
    let lists = round.status.uncounted_terminated_pods.iter();
    let mut waiting = lists.flat_map(|lists| lists.succeeded.iter().chain(&lists.failed).flatten());
    let goes_on = |member: &Member<'_>| member.tracked || !pods::is_finished(member.pod);
    if waiting.next().is_some() || round.members.iter().any(goes_on) {
        return;
    }
    let kind = if succeeded { "Complete" } else { "Failed" };
    ensure(&mut round.status, kind, "True", &reason, &message, round.now);
    if !succeeded {
        let reason = told_reason(&reason);
        return told.push(Occurrence::of(round.job, true, reason, message));
    }
    round.status.completion_time = Some(Time(round.now));
    if round.spec.completions.is_some_and(|all| round.status.succeeded.unwrap_or(0) > all) {
        let message = "Too many succeeded pods running after completion count reached";
        told.push(Occurrence::of(round.job, true, "TooManySucceededPods", message.to_owned()));
    }
    told.push(Occurrence::of(round.job, false, "Completed", "Job completed".to_owned()));
}

/// The reason of an Event is one of those that this controller gives.
fn told_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "PodFailurePolicy",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

/// Sets a condition, if it says something new; from nothing to False is nothing new (`ensureJobConditionStatus`).
fn ensure(of: &mut JobStatus, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> bool {
    let conditions = of.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let is_new = known.as_ref().map_or(status != "False", |known| {
        known.status != status
            || known.reason.as_deref().unwrap_or_default() != reason
            || known.message.as_deref().unwrap_or_default() != message
    });
    if is_new {
        let condition = JobCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        };
        match known {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    is_new
}

/// Writes the status if it changed, and tells what goes with it.
pub(super) fn write(round: &Round<'_>, told: Vec<Occurrence>, plan: &mut Plan) {
    let count = |holds: &dyn Fn(&&Member<'_>) -> bool| round.members.iter().filter(holds).count();
    let active = count(&|member| member.is_active());
    let ready = count(&|member| member.is_active() && pods::is_ready(member.pod));
    let terminating = count(&|member| member.is_terminating());
    let status = &round.status;
    let number = |number: i64| if number == 0 { Value::Null } else { number.into() };
    let text = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).cloned();
    let conditions = status.conditions.as_ref().filter(|conditions| !conditions.is_empty());
    let wanted = json!({
        "active": number(i64::try_from(active).unwrap_or(i64::MAX)),
        "ready": ready,
        "terminating": terminating,
        "succeeded": number(status.succeeded.unwrap_or(0).into()),
        "failed": number(status.failed.unwrap_or(0).into()),
        "startTime": status.start_time,
        "completionTime": status.completion_time,
        "completedIndexes": text(&status.completed_indexes),
        "failedIndexes": status.failed_indexes,
        "conditions": conditions,
    });
    let stored = round.view.json(round.job);
    let current = stored.as_ref().and_then(|stored| stored.get("status"));
    let patch = wanted.as_object().and_then(|wanted| difference(current, wanted));
    let mut patch = patch.unwrap_or_else(|| json!({}));
    let lists = lists(status);
    if current.and_then(|current| current.get("uncountedTerminatedPods"))
        != Some(&Value::Object(lists.clone()))
    {
        let mut lists = lists;
        for list in ["succeeded", "failed"] {
            lists.entry(list).or_insert(Value::Null);
        }
        patch["uncountedTerminatedPods"] = Value::Object(lists);
    }
    if patch.as_object().is_some_and(|patch| !patch.is_empty()) {
        let action = Action::from(merge_this(round.job, "status", json!({"status": patch})));
        plan.actions.push(told.into_iter().fold(action, |action, told| action.telling(Note::Event(told))));
    }
}

/// The lists of pods that are being counted, without empty ones.
fn lists(status: &JobStatus) -> Map<String, Value> {
    let lists = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let lists = [("succeeded", lists.succeeded), ("failed", lists.failed)];
    let full =
        lists.into_iter().filter_map(|(name, list)| Some((name, list.filter(|list| !list.is_empty())?)));
    full.map(|(name, list)| (name.to_owned(), json!(list))).collect()
}
