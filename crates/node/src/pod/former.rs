//! What is known of a pod that a former life of this host ran.
//!
//! Containers that its shim holds are taken over as they are. Where there is no shim any more (the machine was off, or
//! the shim ended) the pod starts again, init containers first, and what its object says of the former life becomes
//! the last one.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod};

use super::decide::restarts;
use super::record::{ContainerRecord, PodRecord, Running, Stage, Terminated};
use super::{container, container_id, uid};
use crate::clock::Now;
use crate::probe::Past;

/// The record of a pod as its object tells it.
pub(crate) fn resume(pod: &Pod, now: Now) -> PodRecord {
    let mut record = PodRecord::new(now);
    let Some(status) = &pod.status else { return record };
    if let Some(time) = &status.start_time {
        record.start_time = time.0;
    }
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let init = status.init_container_statuses.iter().flatten().map(|s| (s, true));
    let main = status.container_statuses.iter().flatten().map(|s| (s, false));
    let added = status.ephemeral_container_statuses.iter().flatten().map(|s| (s, false));
    for (told, is_init) in init.chain(main).chain(added) {
        let Some(spec) = container(pod, &told.name) else { continue };
        let mut known = ContainerRecord {
            restarts: count(told.restart_count),
            image_id: told.image_id.clone(),
            ..ContainerRecord::default()
        };
        if let Some(exit) = last_exit(told, pod, now) {
            known.attempted = true;
            let stays = over || (!is_init && !restarts(pod, &spec, is_init, &exit));
            if stays {
                known.stage = Stage::Ended { exit, again: now.elapsed, told: true };
            } else {
                // A new life of the whole pod: init containers run anew even if they had succeeded.
                known.restarts += 1;
                known.attempted = false;
                known.last = Some(exit);
            }
        }
        record.containers.insert(told.name.clone(), known);
    }
    record
}

/// Puts a container into the record as its runtime holds it: in the life `attempt`, which began at `since`, and as well as
/// the pod's object says.
pub(crate) fn take_over(
    pod: &Pod,
    spec: &Container,
    record: &mut PodRecord,
    attempt: u32,
    since: Timestamp,
    now: Now,
) -> Past {
    let told = pod.status.iter().flat_map(|status| {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten()
    });
    let id = container_id(uid(pod), &spec.name, attempt);
    // What was reported of an earlier life says nothing about this one.
    let told = told
        .filter(|told| told.name == spec.name)
        .find(|told| told.container_id.as_deref() == Some(&id) && count(told.restart_count) == attempt);
    let started = spec.startup_probe.is_none() || told.is_some_and(|told| told.started == Some(true));
    let asked_ready = spec.readiness_probe.is_some();
    let ready = started && (!asked_ready || told.is_some_and(|told| told.ready));
    let container = record.containers.entry(spec.name.clone()).or_default();
    // Where it took long to hear of it, this very life was taken for lost.
    container.last = container.last.take().filter(|last| last.id != id);
    if let Some(told) = told {
        container.image_id = told.image_id.clone();
        container.last = told.last_state.as_ref().and_then(|state| ended(state, told, pod));
    }
    // An older agent's status says nothing of them.
    let given = told.and_then(|told| told.resources.as_ref()).or(spec.resources.as_ref());
    container.given = given.cloned().unwrap_or_default();
    container.restarts = attempt;
    container.attempted = true;
    let since = Now { wall: since, ..now };
    container.stage =
        Stage::Running(Running { since, started, asked_ready, ready, stop: None, is_resized: false });
    Past { started, ready }
}

fn count(told: i32) -> u32 {
    u32::try_from(told).unwrap_or(0)
}

/// How the container's last life ended; a life that the object still believes in was lost.
fn last_exit(told: &ContainerStatus, pod: &Pod, now: Now) -> Option<Terminated> {
    let state = told.state.as_ref()?;
    if let Some(running) = &state.running {
        return Some(lost(life_id(told, pod), running.started_at.as_ref().map(|t| t.0), now.wall));
    }
    let of = |state| ended(state, told, pod);
    of(state).or_else(|| told.last_state.as_ref().and_then(of))
}

fn life_id(told: &ContainerStatus, pod: &Pod) -> String {
    told.container_id.clone().unwrap_or_else(|| format!("host://{}/{}", uid(pod), told.name))
}

fn ended(state: &ContainerState, told: &ContainerStatus, pod: &Pod) -> Option<Terminated> {
    state.terminated.as_ref().map(|terminated| Terminated {
        id: terminated.container_id.clone().unwrap_or_else(|| life_id(told, pod)),
        code: terminated.exit_code,
        signal: terminated.signal.unwrap_or(0),
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started_at: terminated.started_at.as_ref().map(|t| t.0),
        finished_at: terminated.finished_at.as_ref().map(|t| t.0),
    })
}

fn lost(id: String, started_at: Option<Timestamp>, now: Timestamp) -> Terminated {
    Terminated {
        id,
        code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".into(),
        message: "the container was gone when the host's agent came back".into(),
        started_at,
        finished_at: Some(now),
    }
}
