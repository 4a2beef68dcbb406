//! When a Job is over, and why: limits, deadline, failure and success policies, in upstream's order.

use std::time::Duration;

use k8s_openapi::api::batch::v1::SuccessPolicy;

use super::failure_policy::Consequence;
use super::indexes::Indexes;
use super::kind::condition;
use super::members::Member;
use super::round::Round;
use crate::plan::Plan;

/// That a Job is about to be over: no further pod is made, and those that run are deleted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
    /// Whether the stored status says so already.
    pub is_said: bool,
}

/// The condition that says that a Job will have succeeded, and the one that says it will have failed.
pub(super) const SUCCEEDS: &str = "SuccessCriteriaMet";
pub(super) const FAILS: &str = "FailureTarget";

impl Outcome {
    fn new(succeeded: bool, reason: &str, message: &str) -> Self {
        Outcome { succeeded, reason: reason.to_owned(), message: message.to_owned(), is_said: false }
    }

    /// All that was to succeed has.
    pub fn completions_reached() -> Self {
        Outcome::new(true, "CompletionsReached", "Reached expected number of succeeded pods")
    }
}

/// Whether the Job is about to be over, whatever its pods still do.
pub(super) fn decide(round: &Round<'_>, plan: &mut Plan) -> Option<Outcome> {
    for (kind, succeeded) in [(SUCCEEDS, true), (FAILS, false)] {
        if let Some(said) = condition(&round.status, kind) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, message) = (text(&said.reason), text(&said.message));
            return Some(Outcome { succeeded, reason, message, is_said: true });
        }
    }
    let consequences = round.members.iter().filter_map(|member| member.failed.as_ref());
    let fatal = consequences.into_iter().find_map(|consequence| match consequence {
        Consequence::FailsJob(why) => Some(Outcome::new(false, "PodFailurePolicy", why)),
        _ => None,
    });
    fatal
        .or_else(|| limits(round))
        .or_else(|| deadline(round, plan))
        .or_else(|| indexes(round))
        .or_else(|| success(round))
}

fn limits(round: &Round<'_>) -> Option<Outcome> {
    let limit = round.spec.backoff_limit();
    let restarts = restarts(&round.members);
    let restarted = round.spec.restarts_in_place() && restarts >= limit.max(1);
    let exceeded = round.failed > limit || restarted;
    exceeded
        .then(|| Outcome::new(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// How often containers of pods that have not ended were started again.
fn restarts(members: &[Member<'_>]) -> i32 {
    let running = members.iter().filter(|member| !crate::pods::is_finished(member.pod));
    let statuses = running.filter_map(|member| member.pod.status.as_ref());
    let containers =
        statuses.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses));
    containers.map(|container| container.restart_count).fold(0, i32::saturating_add)
}

fn deadline(round: &Round<'_>, plan: &mut Plan) -> Option<Outcome> {
    let seconds = round.spec.active_deadline_seconds.filter(|_| !round.spec.is_suspended())?;
    let since = round.status.start_time.as_ref()?.0;
    let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let passed = Duration::try_from(round.now.duration_since(since)).unwrap_or_default();
    match allowed.checked_sub(passed).filter(|left| !left.is_zero()) {
        Some(left) => {
            plan.again(left);
            None
        }
        None => {
            Some(Outcome::new(false, "DeadlineExceeded", "Job was active longer than specified deadline"))
        }
    }
}

/// With a limit for each index (KEP-3850): too many of them have failed, or none is left.
fn indexes(round: &Round<'_>) -> Option<Outcome> {
    let progress = round.progress.as_ref()?;
    let failed = progress.failed.as_ref().map(Indexes::count).filter(|failed| *failed > 0)?;
    if round.spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Outcome::new(false, "MaxFailedIndexesExceeded", message));
    }
    let all = failed.saturating_add(progress.succeeded.count()) >= round.spec.indexes()?;
    all.then(|| Outcome::new(false, "FailedIndexes", "Job has failed indexes"))
}

fn success(round: &Round<'_>) -> Option<Outcome> {
    let progress = round.progress.as_ref()?;
    let at = met(round.spec.success_policy.as_ref()?, &progress.succeeded, round.spec.indexes()?)?;
    Some(Outcome::new(true, "SuccessPolicy", &format!("Matched rules at index {at}")))
}

/// Which rule of a success policy is met (KEP-3998).
fn met(policy: &SuccessPolicy, succeeded: &Indexes, completions: i32) -> Option<usize> {
    if succeeded.count() == 0 {
        return None;
    }
    policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let have = succeeded.count_of(&wanted);
            let enough = rule.succeeded_count.is_some_and(|count| have >= count);
            wanted.count() > 0 && (have == wanted.count() || enough)
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.count() >= count),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_is_met_is_named() {
        let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [
            {"succeededIndexes": "0,7-9", "succeededCount": 2},
            {"succeededIndexes": "3"},
            {"succeededCount": 4},
        ]}))
        .unwrap();
        for (succeeded, rule) in
            [("", None), ("0,1,2", None), ("0,8", Some(0)), ("3", Some(1)), ("1,2,4,5", Some(2))]
        {
            assert_eq!(met(&policy, &Indexes::parse(succeeded, 10), 10), rule, "{succeeded}");
        }
    }
}
