//! What the scheduler says of pods in their status: that they have no place, and that they go for another one.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Condition, ObjectRef, Pod, TypedRef, Write};
use serde_json::{Value, json};
use store::State;

use crate::unschedulable::{Preemption, Unschedulable};

/// Says on a pod why it has no place, and for which node it is nominated; nothing if it says so already.
pub(crate) fn no_place(pod: &Pod, why: &Unschedulable, state: &State, now: Timestamp) -> Option<Write> {
    let message = why.to_string();
    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let node = match &why.preemption {
        Preemption::Possible(victims) => Some(victims.node.as_str()),
        Preemption::UnderWay(_) => nominated,
        Preemption::Pointless | Preemption::Refused(_) => None,
    };
    let known = condition(pod, "PodScheduled");
    let says = |known: &Condition| known.status == "False" && known.message.as_deref() == Some(&*message);
    if known.is_some_and(says) && nominated == node {
        return None;
    }
    let since = known.filter(|known| known.status == "False").and_then(|k| k.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message),
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut status = json!({"conditions": [condition]});
    if nominated != node {
        status["nominatedNodeName"] = json!(node);
    }
    merge(&ObjectRef::of(pod), status, state)
}

/// Says on a pod that it goes for one of higher priority. Nothing if the pod is gone, or says so already.
pub(crate) fn preempted(victim: &Pod, by: &Pod, state: &State, now: Timestamp) -> Option<Write> {
    let known = condition(victim, "DisruptionTarget");
    if known.is_some_and(|known| {
        known.status == "True" && known.reason.as_deref() == Some("PreemptionByScheduler")
    }) {
        return None;
    }
    let scheduler = by.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    let scheduler = scheduler.filter(|name| !name.is_empty()).unwrap_or("default-scheduler");
    let condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("PreemptionByScheduler".into()),
        message: Some(format!("{scheduler}: preempting to accommodate a higher priority pod")),
        last_transition_time: Some(Time(now)),
        observed_generation: victim.metadata.generation,
        ..PodCondition::default()
    };
    merge(&ObjectRef::of(victim), json!({"conditions": [condition]}), state)
}

/// Takes back that a pod is nominated for a node.
pub(crate) fn not_nominated(pod: &Pod) -> Write {
    let patch = json!({"status": {"nominatedNodeName": null}});
    Write::Merge { subject: subject(&ObjectRef::of(pod)), subresource: "status", patch }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a Condition> {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == kind)
}

pub(crate) fn subject(pod: &ObjectRef) -> TypedRef {
    let (namespace, name) = (pod.namespace.to_string(), pod.name.to_string());
    TypedRef { api_version: "v1".into(), kind: "Pod".into(), namespace, name }
}

/// A change of a pod's status in which each condition takes the place of the one of its type.
fn merge(pod: &ObjectRef, mut status: Value, state: &State) -> Option<Write> {
    let kv = state.get(objects::key("", "pods", &pod.namespace, &pod.name).as_bytes())?;
    let stored: Value = serde_json::from_slice(&kv.value.bytes()).ok()?;
    let mut conditions =
        stored.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in status["conditions"].as_array().into_iter().flatten() {
        conditions.retain(|known| known["type"] != condition["type"]);
        conditions.push(condition.clone());
    }
    status["conditions"] = conditions.into();
    Some(Write::Merge {
        subject: subject(pod),
        subresource: "status",
        patch: json!({
            // A merge patch replaces the whole list of conditions: what was written meanwhile must not get lost.
            "metadata": {"resourceVersion": kv.mod_revision.to_string()},
            "status": status,
        }),
    })
}
