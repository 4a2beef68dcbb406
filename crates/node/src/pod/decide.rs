//! What to do next for one pod: a function of its object, what is remembered of it, and the time.
//!
//! Follows the kubelet: init containers one after the other, sidecars among them (KEP-753) started in order
//! and ended last, restarts by `restartPolicy` with back-off, and an end by preStop hook, SIGTERM, and
//! SIGKILL after the grace period.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::record::{
    ContainerRecord, Ending, Failure, PodRecord, Preparation, Stage, Stop, StopStep, Terminated, Then,
};
use super::resize::{self, Resizing};
use super::{all_containers, ephemeral_containers, is_sidecar, uid};
use crate::clock::Now;
use crate::container::cgroup;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Make folder, volumes and address.
    Prepare,
    /// Make a container's process.
    Start {
        /// Its name.
        container: String,
        /// Which of its lives.
        attempt: u32,
    },
    /// Run a container's preStop hook, for no longer than `limit`.
    PreStop {
        /// Its name.
        container: String,
        /// Which of its lives.
        attempt: u32,
        /// The time left.
        limit: Duration,
    },
    /// Send SIGTERM, or SIGKILL, to a container's processes.
    Signal {
        /// Its name.
        container: String,
        /// Which of its lives.
        attempt: u32,
        /// SIGKILL.
        kill: bool,
    },
    /// Bring what runs to what the pod was given.
    Resize(Resizing),
    /// All is dead: clean up.
    Finish(Then),
    /// Tell people.
    Event {
        /// Whether it is a warning.
        warning: bool,
        /// In the API's word.
        reason: &'static str,
        /// For people.
        message: String,
        /// The container it is about.
        container: Option<String>,
    },
}

/// What to do now, and when to ask again at the latest.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// In order.
    pub actions: Vec<Action>,
    /// In the time of [`Now::elapsed`].
    pub wake: Option<Duration>,
}

impl Decision {
    pub(super) fn wake_at(&mut self, at: Duration) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub(super) fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        message: String,
        container: Option<&str>,
    ) {
        let container = container.map(str::to_owned);
        self.actions.push(Action::Event { warning, reason, message, container });
    }
}

/// Decides that a pod must be dead by `deadline`. An earlier deadline stays.
pub(crate) fn must_end(record: &mut PodRecord, then: Then, deadline: Duration) {
    let deadline = record.ending.as_ref().map_or(deadline, |ending| ending.deadline.min(deadline));
    let then = match &record.ending {
        Some(Ending { then: Then::Forget, .. }) => Then::Forget,
        _ => then,
    };
    record.ending = Some(Ending { deadline, then });
}

/// Decides what to do for a pod, and remembers that it was asked for.
pub(crate) fn decide(pod: &Pod, record: &mut PodRecord, now: Now) -> Decision {
    let mut decision = Decision::default();
    for container in all_containers(pod) {
        record.containers.entry(container.name.clone()).or_default();
    }
    if pod.metadata.deletion_timestamp.is_some() && record.ending.as_ref().is_none_or(is_confirm) {
        // Each time again: a second delete may have shortened the grace period, and the earlier deadline counts.
        must_end(record, Then::Confirm, now.elapsed + grace(pod));
    }
    look_at_deadline(pod, record, now, &mut decision);
    if record.ending.is_some() {
        end(pod, record, now, &mut decision);
    } else if record.failed.is_some() || is_over(pod) {
        let deadline = record.by(now.elapsed + spec_grace(pod));
        stop_all(pod, record, deadline, false, now, &mut decision);
    } else if record.refused.is_some() {
    } else if prepared(record, now, &mut decision) {
        run(pod, record, now, &mut decision);
        resize::follow(pod, record, now, &mut decision);
        stops(pod, record, now, &mut decision);
    }
    if !record.finishing && record.hold_status_until > now.elapsed {
        decision.wake_at(record.hold_status_until);
    }
    decision
}

fn is_confirm(ending: &Ending) -> bool {
    ending.then == Then::Confirm
}

/// Whether the pod's object says that it is over: it never runs again.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `activeDeadlineSeconds`: counted from `status.startTime`, whatever the pod is doing.
fn look_at_deadline(pod: &Pod, record: &mut PodRecord, now: Now, decision: &mut Decision) {
    let limit = seconds(pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds));
    let (Some(limit), false) = (limit, is_over(pod) || record.failed.is_some()) else { return };
    // A clock that was set back doesn't make the pod younger than new.
    let age = Duration::try_from(now.wall.duration_since(record.start_time)).unwrap_or_default();
    if age < limit {
        decision.wake_at(now.elapsed + (limit - age));
        return;
    }
    let (reason, message) =
        ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".to_owned());
    decision.event(true, reason, message.clone(), None);
    record.failed = Some(Failure { reason, message, is_disruption: false });
}

fn seconds(value: Option<i64>) -> Option<Duration> {
    value.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
}

/// The grace period in the pod's spec.
pub(crate) fn spec_grace(pod: &Pod) -> Duration {
    let spec = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    seconds(spec).unwrap_or(Duration::from_secs(30))
}

fn grace(pod: &Pod) -> Duration {
    seconds(pod.metadata.deletion_grace_period_seconds).unwrap_or_else(|| spec_grace(pod))
}

/// Whether folder, volumes and address are there; asks for them if not.
fn prepared(record: &mut PodRecord, now: Now, decision: &mut Decision) -> bool {
    match &record.preparation {
        Preparation::Done { .. } => return true,
        Preparation::Asked => {}
        Preparation::Failed { retry, .. } if *retry > now.elapsed => decision.wake_at(*retry),
        Preparation::None | Preparation::Failed { .. } => {
            record.preparation = Preparation::Asked;
            decision.actions.push(Action::Prepare);
        }
    }
    false
}

/// Whether nothing of the pod is started any more.
pub(super) fn is_done(pod: &Pod, record: &PodRecord) -> bool {
    record.ending.is_some()
        || record.failed.is_some()
        || is_over(pod)
        || all_over(pod, record)
        || init(pod, record) == Init::Failed
}

/// Whether one of a container's own rules has it started again after that exit (KEP-5307).
fn rules_restart(container: &Container, code: i32) -> bool {
    let matches = |rule: &ContainerRestartRule| {
        let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    container.restart_policy_rules.iter().flatten().any(matches)
}

/// Whether a container that ended so is started again.
pub(super) fn restarts(pod: &Pod, container: &Container, is_init: bool, exit: &Terminated) -> bool {
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let policy = container.restart_policy.as_deref().unwrap_or(of_pod);
    if rules_restart(container, exit.code) && (!is_init || exit.code != 0) {
        return true;
    }
    match policy {
        "Never" => false,
        "OnFailure" => exit.code != 0,
        _ => !is_init || is_sidecar(container) || exit.code != 0,
    }
}

/// How far the init containers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Init {
    /// All did their work.
    Done,
    /// The container of this place is next or at it.
    At(usize),
    /// One failed for good.
    Failed,
}

/// How far the init containers are.
pub(super) fn init(pod: &Pod, record: &PodRecord) -> Init {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    // Once a main container lives, what a sidecar does later no longer holds anything up.
    let mains = pod.spec.iter().flat_map(|spec| &spec.containers);
    if mains.filter_map(|c| record.containers.get(&c.name)).any(|c| c.attempted) {
        return Init::Done;
    }
    for (place, container) in containers.iter().enumerate() {
        let done = match record.containers.get(&container.name).map(|c| &c.stage) {
            Some(Stage::Running(running)) => is_sidecar(container) && running.started,
            Some(Stage::Ended { exit, .. }) if !is_sidecar(container) => {
                if exit.code != 0 && !restarts(pod, container, true, exit) {
                    return Init::Failed;
                }
                exit.code == 0
            }
            _ => false,
        };
        if !done {
            return Init::At(place);
        }
    }
    Init::Done
}

/// Whether every main container ended for good.
pub(super) fn all_over(pod: &Pod, record: &PodRecord) -> bool {
    let mut mains = pod.spec.iter().flat_map(|spec| &spec.containers);
    mains.all(|container| match record.containers.get(&container.name).map(|c| &c.stage) {
        Some(Stage::Ended { exit, .. }) => !restarts(pod, container, false, exit),
        _ => false,
    })
}

fn run(pod: &Pod, record: &mut PodRecord, now: Now, decision: &mut Decision) {
    let Some(spec) = &pod.spec else { return };
    let containers = spec.init_containers.as_deref().unwrap_or_default();
    let progress = init(pod, record);
    let over = is_done(pod, record);
    for (place, container) in containers.iter().enumerate() {
        let turn = match progress {
            Init::At(at) => place == at || (place < at && is_sidecar(container)),
            Init::Done => is_sidecar(container),
            Init::Failed => false,
        };
        if turn && !over {
            start_if_due(pod, container, true, record, now, decision);
        }
    }
    if over {
        let deadline = record.by(now.elapsed + spec_grace(pod));
        return stop_all(pod, record, deadline, false, now, decision);
    }
    for container in ephemeral_containers(pod) {
        // Also while init containers are at it: that may be what somebody wants to look at.
        start_if_due(pod, &container, false, record, now, decision);
    }
    if progress == Init::Done {
        for container in &spec.containers {
            start_if_due(pod, container, false, record, now, decision);
        }
    }
}

fn start_if_due(
    pod: &Pod,
    spec: &Container,
    is_init: bool,
    record: &mut PodRecord,
    now: Now,
    decision: &mut Decision,
) {
    let Some(container) = record.containers.get_mut(&spec.name) else { return };
    let due = match &mut container.stage {
        Stage::Waiting { retry, .. } => *retry,
        Stage::Ended { exit, again, told } if restarts(pod, spec, is_init, exit) => {
            if *again > now.elapsed && !*told {
                *told = true;
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = format!(
                    "Back-off restarting failed container {} in pod {name}_{}",
                    spec.name,
                    under(pod)
                );
                decision.event(true, "BackOff", message, Some(&spec.name));
            }
            *again
        }
        _ => return,
    };
    if due > now.elapsed {
        decision.wake_at(due);
        tell_of_waiting(container, spec, now, decision);
        return;
    }
    container.given = spec.resources.clone().unwrap_or_default();
    start(container, &spec.name, decision);
    record.resize.given.get_or_insert_with(|| cgroup::of_pod(pod));
}

/// How long it is said that an image could not be pulled, before it is said that it is waited for.
const PULL_FAILED: Duration = Duration::from_secs(1);

/// A container whose image could not be pulled waits, as the kubelet says it.
fn tell_of_waiting(container: &mut ContainerRecord, spec: &Container, now: Now, decision: &mut Decision) {
    let wait = container.image_back_off;
    let Stage::Waiting { reason, message, retry } = &mut container.stage else { return };
    if !matches!(&**reason, "ErrImagePull" | "RegistryUnavailable") {
        return;
    }
    let then = retry.saturating_sub(wait) + PULL_FAILED;
    if then > now.elapsed {
        decision.wake_at(then);
        return;
    }
    let told = format!("Back-off pulling image {:?}", container.lacks);
    *message = format!("{told}: {reason}: {message}");
    *reason = "ImagePullBackOff".into();
    decision.event(false, "BackOff", told, Some(&spec.name));
    decision.event(true, "Failed", "Error: ImagePullBackOff".into(), Some(&spec.name));
}

fn start(container: &mut ContainerRecord, name: &str, decision: &mut Decision) {
    if container.attempted {
        container.restarts += 1;
    }
    container.attempted = true;
    if let Stage::Ended { exit, .. } = std::mem::replace(&mut container.stage, Stage::Starting) {
        container.last = Some(exit);
    }
    decision.actions.push(Action::Start { container: name.to_owned(), attempt: container.restarts });
}

/// `namespace(uid)`, as the kubelet names a pod in its messages.
pub(super) fn under(pod: &Pod) -> String {
    format!("{}({})", pod.metadata.namespace.as_deref().unwrap_or_default(), uid(pod))
}

/// Takes the next step for every container that must end.
fn stops(pod: &Pod, record: &mut PodRecord, now: Now, decision: &mut Decision) {
    for spec in all_containers(pod) {
        if let Some(container) = record.containers.get_mut(&spec.name) {
            stop(&spec, container, false, now, decision);
        }
    }
}

fn stop(spec: &Container, container: &mut ContainerRecord, force: bool, now: Now, decision: &mut Decision) {
    let attempt = container.restarts;
    let Stage::Running(running) = &mut container.stage else { return };
    let Some(stop) = &mut running.stop else { return };
    let name = || spec.name.clone();
    let expired = force || now.elapsed >= stop.deadline;
    if expired && stop.step == StopStep::PreStop && !force {
        // A hook that took all the time still leaves the process two seconds to end, as in the kubelet.
        stop.deadline = now.elapsed + Duration::from_secs(2);
        stop.step = StopStep::Asked;
        decision.actions.push(Action::Signal { container: name(), attempt, kill: false });
    } else if expired {
        if stop.step < StopStep::Killed {
            stop.step = StopStep::Killed;
            decision.actions.push(Action::Signal { container: name(), attempt, kill: true });
        }
        return;
    } else if stop.step == StopStep::None && has_pre_stop(spec) {
        stop.step = StopStep::PreStop;
        let limit = stop.deadline - now.elapsed;
        decision.actions.push(Action::PreStop { container: name(), attempt, limit });
    } else if matches!(stop.step, StopStep::None | StopStep::PreStopDone) {
        stop.step = StopStep::Asked;
        decision.actions.push(Action::Signal { container: name(), attempt, kill: false });
    }
    decision.wake_at(stop.deadline);
}

fn has_pre_stop(spec: &Container) -> bool {
    spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// Ends everything: first all but the sidecars, then these from the last to the first.
fn stop_all(
    pod: &Pod,
    record: &mut PodRecord,
    deadline: Duration,
    force: bool,
    now: Now,
    decision: &mut Decision,
) {
    record.stopping = true;
    let mut waiting = false;
    for spec in all_containers(pod).filter(|spec| !is_sidecar(spec)) {
        waiting |= stop_one(&spec, record, deadline, force, now, decision);
    }
    let sidecars: Vec<_> = all_containers(pod).filter(|spec| is_sidecar(spec)).collect();
    for spec in sidecars.into_iter().rev() {
        if !waiting || force || now.elapsed >= deadline {
            waiting |= stop_one(&spec, record, deadline, force, now, decision);
        }
    }
    if waiting {
        decision.wake_at(deadline.max(now.elapsed + Duration::from_millis(1)));
    }
}

/// Whether that container still lives.
fn stop_one(
    spec: &Container,
    record: &mut PodRecord,
    deadline: Duration,
    force: bool,
    now: Now,
    decision: &mut Decision,
) -> bool {
    let Some(container) = record.containers.get_mut(&spec.name) else { return false };
    if let Stage::Running(running) = &mut container.stage {
        if running.stop.is_none() {
            let message = format!("Stopping container {}", spec.name);
            decision.event(false, "Killing", message, Some(&spec.name));
        }
        let known = running.stop.get_or_insert(Stop { deadline, step: StopStep::None });
        // After a preStop hook that took all the time there are two seconds more.
        let spare = if known.step < StopStep::Asked { Duration::ZERO } else { Duration::from_secs(2) };
        if known.deadline > deadline + spare {
            known.deadline = deadline;
        }
        stop(spec, container, force, now, decision);
        return true;
    }
    container.stage == Stage::Starting
}

fn end(pod: &Pod, record: &mut PodRecord, now: Now, decision: &mut Decision) {
    let Some(Ending { deadline, then }) = record.ending.clone() else { return };
    let deadline = record.by(deadline);
    stop_all(pod, record, deadline, then == Then::Forget, now, decision);
    if record.is_at_rest() && !record.finishing {
        record.finishing = true;
        decision.actions.push(Action::Finish(then));
    }
}
