//! What of a pod's spec may change: `ValidatePodUpdate` upstream.

use machinery::{Cause, Faults, Object, keep};
use serde_json::{Map, Value};

use super::gates;
use crate::kinds::field::{paths, require};

const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`, \
    `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing \
    tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Faults of a change of the spec.
pub(super) fn validate_spec_stays(object: &Object, old: &Object, faults: &mut Faults) {
    let empty = Map::new();
    let spec = object.0.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let before = old.0.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    for list in ["containers", "initContainers"] {
        let path = format!("spec.{list}");
        let containers = paths(spec.get(list).unwrap_or(&Value::Null), &path);
        for (at, (path, container)) in containers.enumerate() {
            // Upstream asks for it once more. What runs as processes of its host began without one, and must stay changeable:
            // labels are written to it, and finalizers are taken from it.
            let had_none =
                before.get(list).and_then(|old| old.get(at)).is_some_and(|old| old.get("image").is_none());
            if !had_none {
                require(&container["image"], format!("{path}.image"), "", faults);
            }
        }
    }
    if spec == before {
        return;
    }
    for list in ["containers", "initContainers"] {
        let count = |spec: &Map<String, Value>| spec.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        if count(spec) != count(before) {
            let why = "pod updates may not add or remove containers";
            faults.push(Cause::forbidden(format!("spec.{list}"), why));
            return;
        }
    }
    let mut allowed = spec.clone();
    for list in ["containers", "initContainers"] {
        let old = before.get(list).and_then(Value::as_array).into_iter().flatten();
        let new = allowed.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (new, old) in new.zip(old) {
            if let Value::Object(new) = new {
                keep(new, old.as_object(), "image")
            };
        }
    }
    if !validate_deadline(spec, before, faults) {
        return;
    }
    keep(&mut allowed, Some(before), "activeDeadlineSeconds");
    validate_tolerations(spec, before, faults);
    keep(&mut allowed, Some(before), "tolerations");
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(before).is_some_and(|old| old < 0) && grace(spec) == Some(1) {
        keep(&mut allowed, Some(before), "terminationGracePeriodSeconds");
    }
    gates::validate_change(&mut allowed, before, faults);
    if allowed != *before {
        faults.push(Cause::forbidden("spec", WHY));
    }
}

/// A deadline may come, and come nearer; whether it does nothing else.
fn validate_deadline(new: &Map<String, Value>, old: &Map<String, Value>, faults: &mut Faults) -> bool {
    let deadline = |spec: &Map<String, Value>| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    let why = match (deadline(new), deadline(old)) {
        (Some(new), _) if new < 0 => "must be greater than or equal to 0",
        (Some(new), Some(old)) if new > old => "must be less than or equal to previous value",
        (None, Some(_)) => "must not update from a positive integer to nil value",
        _ => return true,
    };
    faults.push(Cause::invalid("spec.activeDeadlineSeconds", &deadline(new).into(), why));
    false
}

/// Tolerations only come, and change how long they last.
fn validate_tolerations(new: &Map<String, Value>, old: &Map<String, Value>, faults: &mut Faults) {
    let tolerations = |spec: &Map<String, Value>| {
        let list = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let lasting = |mut toleration: Value| {
            toleration.as_object_mut().map(|map| map.remove("tolerationSeconds"));
            toleration
        };
        list.into_iter().map(lasting).collect::<Vec<_>>()
    };
    let new = tolerations(new);
    if !tolerations(old).iter().all(|toleration| new.contains(toleration)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        faults.push(Cause::forbidden("spec.tolerations", why));
    }
}
