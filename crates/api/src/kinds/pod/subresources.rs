//! `ephemeralcontainers` and `resize`: what each may change of a pod, and nothing else.
//!
//! Follows `podEphemeralContainersStrategy` and `podResizeStrategy` of `pkg/registry/core/pod` upstream.

use std::collections::HashSet;

use machinery::name::label_fault;
use machinery::{Cause, Faults, Object};
use serde_json::{Map, Value, json};

use super::quality;

/// What containers that only help to look at others may not have.
const NOT_FOR_EPHEMERAL: [&str; 9] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "startupProbe",
    "restartPolicy",
    "restartPolicyRules",
];

/// What a kubelet's own pods have, which the API only shows.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What of a container can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The old pod with the new one's ephemeral containers.
pub(super) fn keep_all_but_ephemeral(object: &mut Object, old: &Object) {
    let containers = object.pointer("/spec/ephemeralContainers").cloned();
    take_over(object, old, |spec| match containers {
        Some(containers) => _ = spec.insert("ephemeralContainers".into(), containers),
        None => _ = spec.remove("ephemeralContainers"),
    });
}

/// The old pod with the new one's resources, of its containers (also those that only run at the start) and of the whole (KEP-5419).
pub(super) fn keep_all_but_resources(object: &mut Object, old: &Object) {
    let new = object.0.get("spec").cloned().unwrap_or_default();
    take_over(object, old, |spec| {
        if let Some(whole) = new.get("resources").filter(|whole| !whole.is_null()) {
            spec.insert("resources".into(), whole.clone());
        } else if spec.contains_key("resources") {
            // Validation tells who takes them away.
            spec.insert("resources".into(), json!({}));
        }
        for list in ["containers", "initContainers"] {
            let mut resized = new[list].as_array().into_iter().flatten();
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(by) = resized.next().filter(|new| new["name"] == container["name"]) else {
                    continue;
                };
                let Value::Object(container) = container else { continue };
                for field in ["resources", "resizePolicy"] {
                    match by.get(field) {
                        Some(value) => container.insert(field.to_owned(), value.clone()),
                        None => container.remove(field),
                    };
                }
            }
        }
    });
}

/// Makes `object` what `old` is, but for what `change` does to its spec, the version that the client saw, and
/// who manages its fields.
fn take_over(object: &mut Object, old: &Object, change: impl FnOnce(&mut Map<String, Value>)) {
    let kept: Vec<_> = ["resourceVersion", "managedFields"]
        .into_iter()
        .map(|field| (field, object.meta(field).cloned()))
        .collect();
    *object = old.clone();
    for (field, value) in kept {
        match value {
            Some(value) => object.set_meta(field, value),
            None => _ = object.remove_meta(field),
        }
    }
    if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
        change(spec);
    }
}

/// Faults of ephemeral containers by themselves.
pub(super) fn validate_ephemeral(spec: &Value, path: &str, faults: &mut Faults) {
    let all = spec["ephemeralContainers"].as_array().map_or(&[][..], Vec::as_slice);
    let others: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    let mut names = HashSet::new();
    for (index, container) in all.iter().enumerate() {
        let path = format!("{path}.ephemeralContainers[{index}]");
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            faults.push(Cause::required(format!("{path}.name"), ""));
        } else if let Some(why) = label_fault(name) {
            faults.push(Cause::invalid(format!("{path}.name"), &container["name"], why));
        } else if others.contains(&name) || !names.insert(name) {
            faults.push(Cause::duplicate(format!("{path}.name"), &container["name"]));
        }
        if container["image"].as_str().unwrap_or_default().is_empty() {
            faults.push(Cause::required(format!("{path}.image"), ""));
        }
        let target = &container["targetContainerName"];
        if target.as_str().is_some_and(|target| !target.is_empty() && !others.contains(&target)) {
            faults.push(Cause::not_found(format!("{path}.targetContainerName"), target));
        }
        for field in NOT_FOR_EPHEMERAL {
            let set = match &container[field] {
                Value::Null => false,
                // Its resources are no pointer: none at all are as good as nothing.
                Value::Object(map) => field != "resources" || !map.is_empty(),
                _ => true,
            };
            if set {
                let why = "cannot be set for an Ephemeral Container";
                faults.push(Cause::forbidden(format!("{path}.{field}"), why));
            }
        }
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        for (at, _) in
            mounts.enumerate().filter(|(_, mount)| mount["subPath"].as_str().is_some_and(|p| !p.is_empty()))
        {
            let why = "cannot be set for an Ephemeral Container";
            faults.push(Cause::forbidden(format!("{path}.volumeMounts[{at}].subPath"), why));
        }
    }
}

/// Ephemeral containers come and stay as they are.
pub(super) fn validate_ephemeral_stay(object: &Object, old: &Object, faults: &mut Faults) {
    let list = |object: &Object| {
        let list = object.pointer("/spec/ephemeralContainers").and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let (new, before) = (list(object), list(old));
    for container in before {
        let name = &container["name"];
        let what = match new.iter().find(|new| new["name"] == *name) {
            Some(new) if *new == container => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!("existing ephemeral containers {name} may not be {what}");
        faults.push(Cause::forbidden("spec.ephemeralContainers", &why));
    }
}

/// A resize keeps the pod's quality of service, and touches processor and memory alone.
pub(super) fn validate_resize(object: &Object, old: &Object, faults: &mut Faults) {
    let null = Value::Null;
    let (new, before) = (object.0.get("spec").unwrap_or(&null), old.0.get("spec").unwrap_or(&null));
    let (quality, was) = (quality::of_pod(new), quality::of_pod(before));
    if quality != was {
        let why = "Pod QOS Class may not change as a result of resizing";
        faults.push(Cause::invalid("spec", &json!(quality), why));
    }
    if old.meta("annotations").is_some_and(|all| all.get(MIRROR).is_some()) {
        faults.push(Cause::forbidden("spec", "static pods cannot be resized"));
    }
    validate_part(&new["resources"], &before["resources"], "spec.resources", faults);
    for list in ["containers", "initContainers"] {
        let pairs =
            new[list].as_array().into_iter().flatten().zip(before[list].as_array().into_iter().flatten());
        for (index, (new, before)) in pairs.enumerate() {
            let path = format!("spec.{list}[{index}].resources");
            validate_part(&new["resources"], &before["resources"], &path, faults);
        }
    }
}

fn validate_part(new: &Value, before: &Value, path: &str, faults: &mut Faults) {
    for part in ["requests", "limits"] {
        validate_resized(&new[part], &before[part], &format!("{path}.{part}"), faults);
    }
}

fn validate_resized(new: &Value, before: &Value, path: &str, faults: &mut Faults) {
    let names = |amounts: &Value| amounts.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    for name in names(before).unwrap_or_default() {
        if new[&name].is_null() {
            faults.push(Cause::forbidden(path, "resource requests and limits cannot be removed"));
        } else if new[&name] != before[&name] && !RESIZABLE.contains(&name.as_str()) {
            faults.push(Cause::forbidden(path, "only cpu and memory resources are mutable"));
        }
    }
    for name in names(new).unwrap_or_default() {
        if before[&name].is_null() && !RESIZABLE.contains(&name.as_str()) {
            faults.push(Cause::forbidden(path, "only cpu and memory resources are mutable"));
        }
    }
}
