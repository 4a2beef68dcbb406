//! Taints of nodes that are not ready yet, and for how long pods tolerate those of nodes that fail.
//!
//! Follows `nodetaint` and `defaulttolerationseconds` of `plugin/pkg/admission` upstream.

use machinery::Object;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Upstream's default of `--default-not-ready-toleration-seconds` and `--default-unreachable-toleration-seconds`.
const SECONDS: i64 = 300;

/// A new node takes no pods until it says that it is ready.
pub(super) fn taint(node: &mut Object) {
    let spec = node.0.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else { return };
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// How long a pod stays on a host that is silent, unless it says so itself.
enum Stays {
    /// Not at all: no two such pods are in each other's way, so its spare is made at once.
    No,
    /// For a while.
    Awhile,
    /// Until the host is heard again: another of its name may only run once this one has ended, so that ending it would help
    /// nobody, and cost a start when the host comes back.
    Always,
}

/// A pod stays for a while on a node that fails: one whose agent says that it isn't ready, and one that is silent.
pub(super) fn tolerate(pod: &mut Object) {
    let owners = pod.meta("ownerReferences").and_then(Value::as_array);
    let controller = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
    let stays = match controller.and_then(|owner| owner["kind"].as_str()) {
        Some("ReplicaSet" | "ReplicationController") => Stays::No,
        Some("StatefulSet") => Stays::Always,
        _ => Stays::Awhile,
    };
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    let tolerated = |key: &str| {
        let none = |value: &Value| value.as_str().is_none_or(str::is_empty);
        tolerations.iter().any(|toleration| {
            (toleration["key"] == key || none(&toleration["key"]))
                && (toleration["effect"] == "NoExecute" || none(&toleration["effect"]))
        })
    };
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
    let mut missing = Vec::new();
    if !tolerated(NOT_READY) {
        let mut awhile = toleration(NOT_READY);
        awhile["tolerationSeconds"] = SECONDS.into();
        missing.push(awhile);
    }
    if !tolerated(UNREACHABLE) && !matches!(stays, Stays::No) {
        let mut stay = toleration(UNREACHABLE);
        if matches!(stays, Stays::Awhile) {
            stay["tolerationSeconds"] = SECONDS.into();
        }
        missing.push(stay);
    }
    tolerations.append(&mut missing);
}
