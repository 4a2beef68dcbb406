//! What a pod's status says, from its object and what is remembered of it: phase, conditions, containers.
//!
//! The words and their rules are the kubelet's.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use membership::lease::Epoch;
use objects::STOPS_WITH_LEASE;
use serde_json::{Map, Value, json};

use super::decide::{Init, all_over, init, is_done, restarts, under};
use super::record::{ContainerRecord, PodRecord, Preparation, Stage, Terminated, Then};
use super::{all_containers, container_id, ephemeral_containers, is_sidecar, uid};
use crate::clock::{Now, rfc3339};

/// The status that the pod should have, with everything of `stored` that isn't the agent's to say.
pub(crate) fn status(pod: &Pod, stored: &Value, record: &PodRecord, host: IpAddr, now: Now) -> Value {
    let mut status = stored.as_object().cloned().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Value::Object(status) };
    if let Some(generation) = pod.metadata.generation {
        status.insert("observedGeneration".into(), generation.into());
    }
    let phase = phase(pod, record);
    status.insert("phase".into(), phase.into());
    let conditions = conditions(pod, stored, record, phase, now.wall);
    status.insert("conditions".into(), conditions);
    if let Some(message) = &record.refused {
        status.insert("reason".into(), "RuntimeClassNotSupported".into());
        status.insert("message".into(), message.as_str().into());
    }
    if let Some(failure) = record.failed.as_ref().filter(|_| phase == "Failed") {
        status.insert("reason".into(), failure.reason.into());
        status.insert("message".into(), failure.message.as_str().into());
    }
    status.insert("hostIP".into(), host.to_string().into());
    status.insert("hostIPs".into(), json!([{"ip": host}]));
    if let Preparation::Done { address } = &record.preparation {
        status.insert("podIP".into(), address.to_string().into());
        status.insert("podIPs".into(), json!([{"ip": address}]));
    }
    status.insert("startTime".into(), rfc3339(record.start_time).into());
    let init_specs = spec.init_containers.as_deref().unwrap_or_default();
    if !init_specs.is_empty() {
        let list = init_specs.iter().map(|c| container_status(pod, c, true, record)).collect();
        status.insert("initContainerStatuses".into(), Value::Array(list));
    }
    if let Some(whole) = &spec.resources {
        // Until all of a resize is done it has what it had.
        let told = pod.status.as_ref().and_then(|status| status.resources.as_ref());
        let has = told.filter(|_| record.resize.progress.is_some()).unwrap_or(whole);
        put_resources(&mut status, whole, has);
    }
    let list = spec.containers.iter().map(|c| container_status(pod, c, false, record)).collect();
    status.insert("containerStatuses".into(), Value::Array(list));
    let added: Vec<Value> = ephemeral_containers(pod)
        .map(|c| {
            let mut told = container_status(pod, &c, false, record);
            // Nobody waits for it to come up.
            told["ready"] = false.into();
            if let Some(told) = told.as_object_mut() {
                told.remove("started");
            }
            told
        })
        .collect();
    if !added.is_empty() {
        status.insert("ephemeralContainerStatuses".into(), Value::Array(added));
    }
    Value::Object(status)
}

/// Whether the status says that the pod is ready.
pub(crate) fn is_ready(status: &Value) -> bool {
    condition(status, "Ready").is_some_and(|c| c["status"] == "True")
}

/// The merge patch (RFC 7396) that makes `to` out of `from`, or nothing if they are the same.
pub(crate) fn difference(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(before) => {
                if let Some(change) = difference(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The value without its nulls: the API fills some in (`lastProbeTime`), and they say nothing.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// How far a pod has come, in the API's word.
pub(crate) fn phase(pod: &Pod, record: &PodRecord) -> &'static str {
    // A terminal phase never changes again.
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if record.failed.is_some() && !record.alive() {
        return "Failed";
    }
    if record.refused.is_some() {
        return "Pending";
    }
    let mains: Vec<Option<&ContainerRecord>> =
        pod.spec.iter().flat_map(|s| &s.containers).map(|c| record.containers.get(&c.name)).collect();
    let ended_well = |c: &Option<&ContainerRecord>| match c.map(|c| &c.stage) {
        Some(Stage::Ended { exit, .. }) => exit.code == 0,
        _ => false,
    };
    let started = |c: &Option<&ContainerRecord>| c.is_some_and(|c| c.attempted || c.last.is_some());
    let ended = record.ending.as_ref().is_some_and(|ending| ending.then == Then::Confirm)
        && !record.alive()
        && mains.iter().any(started);
    if ended || all_over(pod, record) {
        return if mains.iter().all(ended_well) { "Succeeded" } else { "Failed" };
    }
    match init(pod, record) {
        Init::Failed => "Failed",
        Init::At(_) => "Pending",
        Init::Done => {
            let waits = |c: &Option<&ContainerRecord>| match c {
                Some(c) => !matches!(c.stage, Stage::Running(_) | Stage::Ended { .. }) && c.last.is_none(),
                None => true,
            };
            if mains.iter().any(waits) { "Pending" } else { "Running" }
        }
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn conditions(pod: &Pod, stored: &Value, record: &PodRecord, phase: &str, now: Timestamp) -> Value {
    let over = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ => None,
    };
    let unready: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter(|c| !is_container_ready(record, &c.name))
        .map(|c| c.name.as_str())
        .collect();
    let waiting = format!("containers with unready status: [{}]", unready.join(" "));
    let containers_ready = match (&over, unready.is_empty()) {
        (Some(_), _) => over.clone(),
        (None, true) => None,
        (None, false) => Some(("ContainersNotReady", waiting)),
    };
    let initialized = match (init(pod, record), phase) {
        (Init::Done, _) | (_, "Succeeded") => None,
        (Init::Failed, _) | (Init::At(_), _) => {
            let names = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let open = names.filter(|c| !is_initialized(record, c)).map(|c| c.name.as_str());
            let open = open.collect::<Vec<_>>().join(" ");
            Some(("ContainersNotInitialized", format!("containers with incomplete status: [{open}]")))
        }
    };
    let initialized = initialized.filter(|_| record.refused.is_none());
    let prepared = matches!(record.preparation, Preparation::Done { .. });
    let mut wanted = vec![
        ("PodReadyToStartContainers", prepared, None),
        ("Initialized", initialized.is_none(), initialized),
        ("Ready", containers_ready.is_none() && gates(pod, stored).is_none(), {
            containers_ready.clone().or_else(|| gates(pod, stored))
        }),
        ("ContainersReady", containers_ready.is_none(), containers_ready),
        ("PodScheduled", true, None),
    ];
    let disruption = record.failed.as_ref().filter(|failure| failure.is_disruption && phase == "Failed");
    if let Some(failure) = disruption {
        let why = ("TerminationByKubelet", failure.message.clone());
        wanted.push(("DisruptionTarget", true, Some(why)));
    }
    // Of a lease that isn't held nothing new is said.
    if let Some(epoch) = record.stops_with {
        wanted.push((STOPS_WITH_LEASE, true, Some(("HostLease", stops_with(epoch)))));
    } else if record.lacks_lease || record.goes_on && condition(stored, STOPS_WITH_LEASE).is_some() {
        let why = "This pod was started without its host's lease, and goes on when that is over".to_owned();
        wanted.push((STOPS_WITH_LEASE, false, Some((WITHOUT_LEASE, why))));
    }
    let own = pod.metadata.generation;
    let mut wanted: Vec<_> = wanted.into_iter().map(|(kind, holds, why)| (kind, own, holds, why)).collect();
    if let (Some(pending), None) = (&record.resize.pending, &over) {
        let why = Some((pending.reason(), pending.message.clone()));
        wanted.push((RESIZE[0], pending.generation, true, why));
    }
    if let (Some(progress), None) = (&record.resize.progress, &over) {
        let why = progress.error.clone().map(|error| ("Error", error));
        wanted.push((RESIZE[1], progress.generation, true, why));
    }
    let mut list: Vec<Value> = Vec::with_capacity(wanted.len());
    for (kind, generation, holds, why) in &wanted {
        let status = if *holds { "True" } else { "False" };
        let before = condition(stored, kind).filter(|c| c["status"] == status);
        let since = before.and_then(|c| c["lastTransitionTime"].as_str()).map(str::to_owned);
        let mut condition = Map::new();
        condition.insert("type".into(), (*kind).into());
        if let Some(generation) = *generation {
            condition.insert("observedGeneration".into(), generation.into());
        }
        condition.insert("status".into(), status.into());
        condition.insert("lastTransitionTime".into(), since.unwrap_or_else(|| rfc3339(now)).into());
        if let Some((reason, message)) = why {
            condition.insert("reason".into(), (*reason).into());
            if !message.is_empty() {
                condition.insert("message".into(), message.as_str().into());
            }
        }
        list.push(Value::Object(condition));
    }
    let others = stored["conditions"].as_array().into_iter().flatten();
    let is_said =
        |c: &Value| RESIZE.iter().chain(wanted.iter().map(|(kind, ..)| kind)).any(|kind| c["type"] == *kind);
    list.extend(others.filter(|c| !is_said(c)).cloned());
    Value::Array(list)
}

/// What is said of a resize, and only while it is so: that it waits, and that it is being done.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What was given (`allocatedResources`), and what is there. Nothing is said of nothing.
fn put_resources(status: &mut Map<String, Value>, given: &ResourceRequirements, has: &ResourceRequirements) {
    for (field, value) in [("allocatedResources", json!(given.requests)), ("resources", json!(has))] {
        if value.as_object().is_some_and(|map| !map.is_empty()) {
            status.insert(field.into(), value);
        } else {
            status.remove(field);
        }
    }
}

/// Why a pod doesn't stop with the lease: in that condition, and of the Event about it.
pub(crate) const WITHOUT_LEASE: &str = "StartedWithoutLease";

/// What the condition [`STOPS_WITH_LEASE`] says of an epoch: a pod starts in no other one.
pub(crate) fn stops_with(epoch: Epoch) -> String {
    format!("This pod is stopped before the lease of its host's epoch {epoch} is over")
}

/// Why the pod's readiness gates are not open, if they aren't.
fn gates(pod: &Pod, stored: &Value) -> Option<(&'static str, String)> {
    let gates = pod.spec.as_ref()?.readiness_gates.iter().flatten();
    let closed: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match condition(stored, kind).map(|c| c["status"].as_str().unwrap_or_default()) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
                }
                Some("True") => None,
                Some(status) => {
                    Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {status}"))
                }
            }
        })
        .collect();
    (!closed.is_empty()).then(|| ("ReadinessGatesNotReady", closed.join(", ")))
}

fn is_container_ready(record: &PodRecord, name: &str) -> bool {
    match record.containers.get(name).map(|c| &c.stage) {
        Some(Stage::Running(running)) => running.started && running.ready,
        _ => false,
    }
}

fn is_initialized(record: &PodRecord, spec: &Container) -> bool {
    match record.containers.get(&spec.name).map(|c| &c.stage) {
        Some(Stage::Running(running)) => is_sidecar(spec) && running.started,
        Some(Stage::Ended { exit, .. }) => exit.code == 0,
        _ => false,
    }
}

fn container_status(pod: &Pod, spec: &Container, is_init: bool, record: &PodRecord) -> Value {
    let known = record.containers.get(&spec.name);
    let fresh = ContainerRecord::default();
    let container = known.unwrap_or(&fresh);
    let id = container_id(uid(pod), &spec.name, container.restarts);
    let most = LONGEST_MESSAGES / all_containers(pod).count().max(1);
    let mut status = Map::new();
    status.insert("name".into(), spec.name.as_str().into());
    let mut last = container.last.as_ref();
    let state = match &container.stage {
        Stage::Running(running) => json!({"running": {"startedAt": rfc3339(running.since.wall)}}),
        Stage::Ended { exit, .. } => {
            let again = !is_done(pod, record) && restarts(pod, spec, is_init, exit);
            if again {
                last = Some(exit);
                // `back_off` is already that of the next end, twice this one's up to the cap.
                let wait = container.back_off.as_secs().max(20) / 2;
                let message = format!(
                    "back-off {wait}s restarting failed container={} pod={}_{}",
                    spec.name,
                    pod.metadata.name.as_deref().unwrap_or_default(),
                    under(pod)
                );
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            } else {
                json!({"terminated": terminated(exit, most)})
            }
        }
        Stage::Waiting { .. } | Stage::Starting => waiting(pod, record, container),
    };
    status.insert("state".into(), state);
    status.insert(
        "lastState".into(),
        last.map_or_else(|| json!({}), |e| json!({"terminated": terminated(e, most)})),
    );
    let running = matches!(&container.stage, Stage::Running(_));
    let ended_well = matches!(&container.stage, Stage::Ended { exit, .. } if exit.code == 0);
    let is_plain_init = is_init && !is_sidecar(spec);
    let ready = if is_plain_init { ended_well } else { is_container_ready(record, &spec.name) };
    status.insert("ready".into(), ready.into());
    status.insert("restartCount".into(), container.restarts.into());
    status.insert("image".into(), spec.image.as_deref().unwrap_or_default().into());
    status.insert("imageID".into(), container.image_id.as_str().into());
    if running || matches!(&container.stage, Stage::Ended { .. }) {
        status.insert("containerID".into(), id.into());
    } else if let Some(last) = &container.last {
        status.insert("containerID".into(), last.id.as_str().into());
    }
    let started = match &container.stage {
        Stage::Running(running) => running.started && !is_plain_init,
        _ => false,
    };
    status.insert("started".into(), started.into());
    let given = spec.resources.clone().unwrap_or_default();
    let has = if running { container.given.clone() } else { given.clone() };
    put_resources(&mut status, &given, &has);
    Value::Object(status)
}

fn waiting(pod: &Pod, record: &PodRecord, container: &ContainerRecord) -> Value {
    if let Some(message) = &record.refused {
        return json!({"waiting": {"reason": "RuntimeClassNotSupported", "message": message}});
    }
    if let Preparation::Failed { error, .. } = &record.preparation {
        return json!({"waiting": {"reason": error.reason(), "message": error.to_string()}});
    }
    match &container.stage {
        Stage::Waiting { reason, message, .. } if !reason.is_empty() => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        _ if init(pod, record) != Init::Done => json!({"waiting": {"reason": "PodInitializing"}}),
        _ => json!({"waiting": {"reason": "ContainerCreating"}}),
    }
}

/// How long the last words of all of a pod's containers may be together.
///
/// The kubelet's `MaxPodTerminationMessageLogLength`.
const LONGEST_MESSAGES: usize = 12 << 10;

/// `most` is how long the message may be.
fn terminated(exit: &Terminated, most: usize) -> Value {
    let mut value = Map::new();
    value.insert("exitCode".into(), exit.code.into());
    if exit.signal != 0 {
        value.insert("signal".into(), exit.signal.into());
    }
    value.insert("reason".into(), exit.reason.as_str().into());
    if !exit.message.is_empty() {
        let message = &exit.message[..exit.message.floor_char_boundary(most)];
        value.insert("message".into(), message.into());
    }
    for (name, time) in [("startedAt", exit.started_at), ("finishedAt", exit.finished_at)] {
        if let Some(time) = time {
            value.insert(name.into(), rfc3339(time).into());
        }
    }
    value.insert("containerID".into(), exit.id.as_str().into());
    Value::Object(value)
}
