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

/// A pod that nobody would replace stays for a while on a node that fails, and so does a Job's: its work would begin anew,
/// and count as failed. One of another controller does not ask for that: here its spare is made as soon as it is safe, and
/// only a pod that says otherwise waits longer.
pub(super) fn tolerate(pod: &mut Object) {
    let owners = pod.meta("ownerReferences").and_then(Value::as_array);
    if owners.is_some_and(|owners| {
        owners.iter().any(|owner| owner["controller"] == true && owner["kind"] != "Job")
    }) {
        return;
    }
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    let tolerated = |key: &str, list: &[Value]| {
        let none = |value: &Value| value.as_str().is_none_or(str::is_empty);
        list.iter().any(|toleration| {
            (toleration["key"] == key || none(&toleration["key"]))
                && (toleration["effect"] == "NoExecute" || none(&toleration["effect"]))
        })
    };
    let missing = [NOT_READY, UNREACHABLE].into_iter().filter(|key| !tolerated(key, tolerations));
    for key in missing.collect::<Vec<_>>() {
        tolerations.push(json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
        }));
    }
}
