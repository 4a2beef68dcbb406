//! What the scheduler says of pods in their status: that they have no place, and that they go for another one.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{
    Condition, DISRUPTION_TARGET, ObjectRef, Pod, TypedRef, Write, disruption_target, merge_pod_status,
};
use serde_json::json;
use store::State;

use crate::profile;
use crate::unschedulable::{Preemption, Unschedulable};

/// Why a pod goes that makes room for another.
pub(crate) const PREEMPTED: &str = "PreemptionByScheduler";

/// Says on a pod why it has no place, and for which node it is nominated; nothing if it says so already.
pub(crate) fn no_place(pod: &Pod, why: &Unschedulable, state: &State, now: Timestamp) -> Option<Write> {
    let message = why.to_string();
    let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let node = match &why.preemption {
        Preemption::Possible(victims) => Some(victims.node.as_str()),
        Preemption::UnderWay(_) => nominated,
        Preemption::Pointless | Preemption::Refused(_) => None,
    };
    let known = pod.condition("PodScheduled");
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
    merge_pod_status(pod, status, state)
}

/// Says on a pod that it goes for one of higher priority. Nothing if the pod is gone, or says so already.
pub(crate) fn preempted(victim: &Pod, by: &Pod, state: &State, now: Timestamp) -> Option<Write> {
    let known = victim.condition(DISRUPTION_TARGET);
    if known.is_some_and(|known| known.status == "True" && known.reason.as_deref() == Some(PREEMPTED)) {
        return None;
    }
    let scheduler = profile::name_of(by);
    let why = format!("{scheduler}: preempting to accommodate a higher priority pod");
    let condition = disruption_target(victim, PREEMPTED, &why, now);
    merge_pod_status(victim, json!({"conditions": [condition]}), state)
}

/// Takes back that a pod is nominated for a node.
pub(crate) fn not_nominated(pod: &Pod) -> Write {
    let patch = json!({"status": {"nominatedNodeName": null}});
    Write::Merge { subject: subject(&ObjectRef::of(pod)), subresource: "status", patch }
}

pub(crate) fn subject(pod: &ObjectRef) -> TypedRef {
    let (namespace, name) = (pod.namespace.to_string(), pod.name.to_string());
    TypedRef { api_version: "v1".into(), kind: "Pod".into(), namespace, name }
}
