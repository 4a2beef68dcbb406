//! What is known of a pod that a former life of this host ran.
//!
//! In this version pods end with the agent, so nothing of the former life runs. The pod starts again, init
//! containers first, and what its object says of the former life becomes the last one.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::decide::restarts;
use super::record::{Container, Exit, Record, Stage};
use super::{container, uid};
use crate::clock::Now;

/// The record of a pod as its object tells it.
pub(crate) fn resume(pod: &Pod, now: Now) -> Record {
    let mut record = Record::new(now);
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
        let mut known = Container { restarts: count(told.restart_count), ..Container::default() };
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

fn count(told: i32) -> u32 {
    u32::try_from(told).unwrap_or(0)
}

/// How the container's last life ended; a life that the object still believes in was lost.
fn last_exit(told: &ContainerStatus, pod: &Pod, now: Now) -> Option<Exit> {
    let id = || told.container_id.clone().unwrap_or_else(|| format!("host://{}/{}", uid(pod), told.name));
    let ended = |state: &ContainerState| {
        state.terminated.as_ref().map(|terminated| Exit {
            id: terminated.container_id.clone().unwrap_or_else(id),
            code: terminated.exit_code,
            signal: terminated.signal.unwrap_or(0),
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated.message.clone().unwrap_or_default(),
            started_at: terminated.started_at.as_ref().map(|t| t.0),
            finished_at: terminated.finished_at.as_ref().map(|t| t.0),
        })
    };
    let state = told.state.as_ref()?;
    if let Some(running) = &state.running {
        return Some(lost(id(), running.started_at.as_ref().map(|t| t.0), now.wall));
    }
    ended(state).or_else(|| told.last_state.as_ref().and_then(ended))
}

fn lost(id: String, started_at: Option<Timestamp>, now: Timestamp) -> Exit {
    Exit {
        id,
        code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".into(),
        message: "the host's agent ended while the container ran".into(),
        started_at,
        finished_at: Some(now),
    }
}
