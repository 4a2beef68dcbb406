//! A deployment's status: its numbers and the conditions that `kubectl rollout status` and `kubectl wait`
//! read (`pkg/controller/deployment/progress.go`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::Write;
use serde_json::json;

use super::rollout::Rollout;
use crate::plan::{Plan, difference, merge};
use crate::replica_set::FAILURE;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
/// Why a rollout doesn't begin: its new ReplicaSet was refused.
pub(super) const NOT_CREATED: &str = "ReplicaSetCreateError";

/// Writes the status if it changed; `rolling` says that this is a step of a rollout, which progresses or
/// times out, and not a pause or a change of size.
pub(super) fn report(rollout: &mut Rollout<'_>, plan: &mut Plan, rolling: bool) {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let mut new = numbers(rollout);
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now: rollout.now };
    availability(rollout, &new, &mut conditions);
    failure(rollout, &mut conditions);
    match deadline(rollout) {
        Some(deadline) => {
            pause(rollout, &mut conditions);
            if rolling {
                found(rollout, &mut conditions);
                progress(rollout, &old, &new, deadline, &mut conditions);
                if let Some(wait) = conditions.time_left(deadline).filter(|_| !complete(rollout, &new)) {
                    plan.again(wait);
                }
            }
        }
        None => conditions.remove(PROGRESSING),
    }
    new.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    write(rollout, &new, plan);
}

/// Whether the rollout is over, by the status that this reconciliation would write.
pub(super) fn is_complete(rollout: &Rollout<'_>) -> bool {
    complete(rollout, &numbers(rollout))
}

fn complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let all = Some(rollout.replicas);
    rollout.created.is_none()
        && status.updated_replicas.or(Some(0)) == all
        && status.replicas.or(Some(0)) == all
        && status.available_replicas.or(Some(0)) == all
}

fn numbers(rollout: &Rollout<'_>) -> DeploymentStatus {
    let statuses = || rollout.sets.iter().filter_map(|set| set.set.status.as_ref());
    let sum = |values: &mut dyn Iterator<Item = Option<i32>>| values.flatten().fold(0, i32::saturating_add);
    let available = sum(&mut statuses().map(|status| status.available_replicas));
    let wanted = sum(&mut rollout.sets.iter().map(|set| set.set.spec.as_ref()?.replicas));
    let updated = rollout.new_set().and_then(|set| set.set.status.as_ref()).map_or(0, |s| s.replicas);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: Some(sum(&mut statuses().map(|status| Some(status.replicas)))),
        updated_replicas: Some(updated),
        ready_replicas: Some(sum(&mut statuses().map(|status| status.ready_replicas))),
        available_replicas: Some(available),
        unavailable_replicas: Some((wanted - available).max(0)),
        terminating_replicas: Some(sum(&mut statuses().map(|status| status.terminating_replicas))),
        collision_count: (rollout.collisions != 0).then_some(rollout.collisions),
        conditions: None,
    }
}

fn write(rollout: &Rollout<'_>, status: &DeploymentStatus, plan: &mut Plan) {
    let count = |n: Option<i32>| n.filter(|n| *n != 0);
    let wanted = json!({
        "observedGeneration": status.observed_generation,
        "replicas": count(status.replicas),
        "updatedReplicas": count(status.updated_replicas),
        "readyReplicas": count(status.ready_replicas),
        "availableReplicas": count(status.available_replicas),
        "unavailableReplicas": count(status.unavailable_replicas),
        "terminatingReplicas": status.terminating_replicas,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
    });
    let patch = wanted.as_object().and_then(|wanted| difference(rollout.stored.get("status"), wanted));
    if let Some(patch) = patch {
        plan.write(merge(rollout.deployment, "status", json!({"status": patch})));
    }
}

fn deadline(rollout: &Rollout<'_>) -> Option<Duration> {
    let seconds = rollout.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn availability(rollout: &Rollout<'_>, status: &DeploymentStatus, conditions: &mut Conditions) {
    let minimum = rollout.replicas - rollout.limits().1;
    if status.available_replicas.unwrap_or(0) >= minimum {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
}

/// What a set says of refused pods, the deployment says too: the new set's words first.
fn failure(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let sets = rollout.new_set().into_iter().chain(rollout.old());
    let all = sets.filter_map(|set| set.set.status.as_ref()?.conditions.as_ref()).flatten();
    match all.into_iter().find(|condition| condition.type_ == FAILURE) {
        Some(failure) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            conditions.set(FAILURE, &failure.status, &text(&failure.reason), &text(&failure.message));
        }
        None => conditions.remove(FAILURE),
    }
}

fn pause(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let reason = conditions.get(PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    let was_paused = reason == Some("DeploymentPaused");
    match rollout.spec.paused == Some(true) {
        true if !was_paused => {
            conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused");
        }
        false if was_paused => {
            conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
        _ => {}
    }
}

fn found(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let was_refused = conditions.get(PROGRESSING).is_some_and(is_refusal);
    let created = format!("Created new replica set {:?}", rollout.new_name());
    match (&rollout.created, rollout.new_set()) {
        // It may be refused again.
        (Some(_), _) if was_refused => {}
        (Some(_), _) => conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &created),
        (None, Some(_)) if was_refused => {
            conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &created);
        }
        (None, Some(_)) if conditions.get(PROGRESSING).is_none() => {
            let message = format!("Found new replica set {:?}", rollout.new_name());
            conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", &message);
        }
        (None, _) => {}
    }
}

fn is_refusal(condition: &DeploymentCondition) -> bool {
    condition.reason.as_deref() == Some(NOT_CREATED)
}

/// What the status says if the new ReplicaSet is refused, unless it says that already; `{}` stands for the reason.
pub(super) fn not_created(rollout: &Rollout<'_>, message: &str) -> Option<Write> {
    deadline(rollout)?;
    let status = rollout.deployment.status.clone().unwrap_or_default();
    let mut conditions = Conditions { list: status.conditions.unwrap_or_default(), now: rollout.now };
    if conditions.get(PROGRESSING).is_some_and(is_refusal) {
        return None;
    }
    conditions.set(PROGRESSING, "False", NOT_CREATED, message);
    let patch = json!({"status": {"conditions": conditions.list}});
    Some(merge(rollout.deployment, "status", patch))
}

fn progress(
    rollout: &Rollout<'_>,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    deadline: Duration,
    conditions: &mut Conditions,
) {
    let reason = conditions.get(PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if new.replicas == new.updated_replicas && reason == Some("NewReplicaSetAvailable") {
        return;
    }
    let who = match rollout.new_set().and_then(|set| set.set.metadata.name.as_ref()) {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", rollout.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let observed = old.observed_generation >= rollout.deployment.metadata.generation;
    if complete(rollout, new) && (observed || rollout.created.is_none()) {
        let message = format!("{who} has successfully progressed.");
        conditions.set(PROGRESSING, "True", "NewReplicaSetAvailable", &message);
    } else if progressed(old, new) {
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{who} is progressing."));
    } else if conditions.time_left(deadline) == Some(Duration::ZERO) {
        let message = format!("{who} has timed out progressing.");
        conditions.set(PROGRESSING, "False", "ProgressDeadlineExceeded", &message);
    }
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |n: Option<i32>| n.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition unless it says so already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let same = |c: &DeploymentCondition| c.status == status && c.reason.as_deref() == Some(reason);
        if !self.get(kind).is_some_and(same) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition, and the time of its last update with it.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let kept = self.get(kind).filter(|condition| condition.status == status);
        let since = kept.and_then(|condition| condition.last_transition_time.clone());
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: since.or(Some(Time(self.now))),
        });
    }

    /// How long the rollout may still go on without progress; nothing if it is over one way or the other.
    fn time_left(&self, deadline: Duration) -> Option<Duration> {
        let condition = self.get(PROGRESSING)?;
        let over = ["NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"];
        if condition.reason.as_deref().is_some_and(|reason| over.contains(&reason)) {
            return None;
        }
        let passed = self.now.duration_since(condition.last_update_time.as_ref()?.0);
        Some(deadline.saturating_sub(Duration::try_from(passed).unwrap_or_default()))
    }
}
