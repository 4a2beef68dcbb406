//! What parts of the cluster beside its host say in a pod's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use store::State;

use crate::{ObjectRef, Pod, TypedRef, Write, key};

/// The condition of a pod that is about to go because of something else than itself (KEP-3329).
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Says that a pod is about to go, and why.
pub fn disruption_target(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: DISRUPTION_TARGET.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// A change of a pod's status in which each condition takes the place of the one of its type. It holds for the version of the pod
/// in `state` alone; nothing if it is gone, or another one bears its name.
pub fn merge_pod_status(pod: &Pod, mut status: Value, state: &State) -> Option<Write> {
    let ObjectRef { namespace, name } = ObjectRef::of(pod);
    let kv = state.get(key("", "pods", &namespace, &name).as_bytes())?;
    let stored: Value = serde_json::from_slice(&kv.value.bytes()).ok()?;
    if stored.pointer("/metadata/uid").and_then(Value::as_str) != pod.metadata.uid.as_deref() {
        return None;
    }
    if let Some(said) = status.get("conditions").and_then(Value::as_array).cloned() {
        let known = stored.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = known.cloned().unwrap_or_default();
        for condition in said {
            conditions.retain(|known| known["type"] != condition["type"]);
            conditions.push(condition);
        }
        status["conditions"] = conditions.into();
    }
    // A merge patch replaces the whole list of conditions: what was written meanwhile must not get lost.
    let patch = json!({"metadata": {"resourceVersion": kv.mod_revision.to_string()}, "status": status});
    let subject = TypedRef {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: namespace.to_string(),
        name: name.to_string(),
    };
    Some(Write::Merge { subject, subresource: "status", patch })
}

#[cfg(test)]
mod tests {
    use store::Txn;

    use super::*;

    #[test]
    fn a_condition_takes_the_place_of_its_own_type_alone() {
        let stored = json!({
            "metadata": {"name": "p", "namespace": "d"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": DISRUPTION_TARGET, "status": "False"}]},
        });
        let mut state = State::default();
        let pod: Pod = serde_json::from_value(stored.clone()).unwrap();
        let said = json!({"phase": "Failed", "conditions": [{"type": DISRUPTION_TARGET, "status": "True"}]});
        assert_eq!(merge_pod_status(&pod, said.clone(), &state), None, "it is gone");
        state.apply(&Txn::put(key("", "pods", "d", "p"), stored.to_string())).unwrap();
        let Some(Write::Merge { patch, .. }) = merge_pod_status(&pod, said, &state) else {
            panic!("no write")
        };
        let expected =
            json!([{"type": "Ready", "status": "True"}, {"type": DISRUPTION_TARGET, "status": "True"}]);
        assert_eq!(patch["status"], json!({"phase": "Failed", "conditions": expected}));
        assert_eq!(patch["metadata"]["resourceVersion"], state.revision().to_string());
        let other: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}})).unwrap();
        assert_eq!(merge_pod_status(&other, json!({}), &state), None, "another bears its name");
    }
}
