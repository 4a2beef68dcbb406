//! Pods that wait for their scheduling gates: KEP-3521, and what may change meanwhile, KEP-3838.

use std::collections::HashSet;

use machinery::name::qualified_faults;
use machinery::{Cause, Faults, Object, keep};
use serde_json::{Map, Value, json};

use crate::kinds::field::{items, paths};

const AFFINITY: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
const TERMS: &str = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// The conditions that a new pod starts with: why it isn't placed, if gates keep it from it.
pub(super) fn first_conditions(object: &Object) -> Option<Value> {
    let gates = object.pointer("/spec/schedulingGates")?;
    let since = object.meta("creationTimestamp");
    (!items(gates).is_empty()).then(|| {
        json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": since,
        }])
    })
}

/// Faults of the gates of a pod or a template.
pub(super) fn validate_gates(gates: &Value, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (path, gate) in paths(gates, path) {
        let name = gate["name"].as_str().unwrap_or_default();
        for why in qualified_faults(name) {
            faults.push(Cause::invalid(&path, &json!(name), why));
        }
        if !seen.insert(name) {
            faults.push(Cause::duplicate(path, &json!(name)));
        }
    }
}

/// A new pod that has a host already can't wait for gates.
pub(super) fn validate_unplaced(object: &Object, faults: &mut Faults) {
    let placed =
        object.pointer("/spec/nodeName").is_some_and(|node| !matches!(node.as_str(), None | Some("")));
    if placed && object.pointer("/spec/schedulingGates").is_some_and(|gates| !items(gates).is_empty()) {
        faults.push(Cause::forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
}

/// Faults of a change of the gates and, while there were some, of where the pod may be placed. `allowed` gets back what it
/// had `before` wherever this has judged the change.
pub(super) fn validate_change(
    allowed: &mut Map<String, Value>,
    before: &Map<String, Value>,
    faults: &mut Faults,
) {
    let null = Value::Null;
    let gates = |spec: &'_ Map<String, Value>| spec.get("schedulingGates").cloned().unwrap_or_default();
    let (new, old) = (gates(allowed), gates(before));
    let names: HashSet<&Value> = items(&old).iter().map(|gate| &gate["name"]).collect();
    for (path, gate) in paths(&new, "spec.schedulingGates").filter(|(_, gate)| !names.contains(&gate["name"]))
    {
        let name = gate["name"].as_str().unwrap_or_default();
        let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        faults.push(Cause::forbidden(format!("{path}.name"), &why));
    }
    keep(allowed, Some(before), "schedulingGates");
    if items(&old).is_empty() {
        return;
    }

    let (new, old) =
        (allowed.get("nodeSelector").unwrap_or(&null), before.get("nodeSelector").unwrap_or(&null));
    if old.as_object().into_iter().flatten().any(|(key, value)| new.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        faults.push(Cause::invalid("spec.nodeSelector", new, why));
    }
    keep(allowed, Some(before), "nodeSelector");

    validate_terms(allowed, before, faults);
    keep_node_affinity(allowed, before);
}

/// Terms are alternatives to each other, and the requirements of one hold together: so a further term would widen where
/// the pod may go, and a further requirement of each narrows it.
fn validate_terms(new: &Map<String, Value>, old: &Map<String, Value>, faults: &mut Faults) {
    let terms = |spec: &Map<String, Value>| {
        let terms = spec.get("affinity").and_then(|affinity| affinity.pointer(TERMS));
        terms.cloned().unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let path = format!("{AFFINITY}.nodeSelectorTerms");
    if items(&old).is_empty() {
        return;
    }
    if items(&new).len() != items(&old).len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        faults.push(Cause::invalid(path, &new, why));
        return;
    }
    for ((path, new), old) in paths(&new, &path).zip(items(&old)) {
        if !only_adds(new, old) {
            faults.push(Cause::invalid(path, new, "only additions are allowed (no mutations or deletions)"));
        }
    }
}

/// Whether a term says all that it said, and perhaps more. One that said nothing matches no host, and any requirement would
/// widen it.
fn only_adds(new: &Value, old: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    if lists.iter().all(|list| items(&old[list]).is_empty()) {
        return lists.iter().all(|list| items(&new[list]).is_empty());
    }
    lists.iter().all(|list| items(&new[list]).starts_with(items(&old[list])))
}

/// Gives the spec the node affinity that it had, and none of the affinity's other parts.
fn keep_node_affinity(allowed: &mut Map<String, Value>, before: &Map<String, Value>) {
    let old = before.get("affinity").and_then(|affinity| affinity.get("nodeAffinity")).cloned();
    let mut affinity = allowed.remove("affinity").and_then(|affinity| match affinity {
        Value::Object(map) => Some(map),
        _ => None,
    });
    match old {
        Some(old) => {
            affinity.get_or_insert_default().insert("nodeAffinity".into(), old);
        }
        None => {
            let new = affinity.as_mut().and_then(|affinity| affinity.remove("nodeAffinity"));
            // Where there was no affinity at all, an empty one is what is left of the addition.
            let bare = affinity.as_ref().is_some_and(Map::is_empty);
            if new.is_some() && bare && !before.contains_key("affinity") {
                affinity = None;
            }
        }
    }
    if let Some(affinity) = affinity {
        allowed.insert("affinity".into(), affinity.into());
    }
}
