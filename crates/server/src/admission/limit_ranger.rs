//! What the LimitRanges of a namespace give to containers that don't say what they need, and the bounds that
//! containers, pods and claims must keep.
//!
//! Follows `plugin/pkg/admission/limitranger` upstream, its sentences included.

use api::{Amounts, pod_resources};
use machinery::{Object, Quantity, Status};
use objects::look;
use serde_json::{Map, Value, json};
use store::{KeyRange, State};

use super::request::{AdmissionRequest, Operation};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const CONTAINERS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

/// The limits of a namespace, of all its LimitRanges.
fn limits(namespace: &str, state: &State) -> Vec<Value> {
    let prefix = objects::namespace_prefix("", "limitranges", namespace);
    let ranges = state.range(&KeyRange::prefix(prefix)).filter_map(|kv| look(kv).ok());
    let lists = ranges.filter_map(|range| range.pointer("/spec/limits").and_then(Value::as_array).cloned());
    lists.flatten().collect()
}

/// Gives the containers of a new pod what they don't ask for themselves.
pub(super) fn complete(request: &AdmissionRequest<'_>, pod: &mut Object) {
    if request.operation != Operation::Create || !request.subresource.is_empty() {
        return;
    }
    let limits = limits(request.named.namespace, request.state);
    let mut notes = Vec::new();
    for limit in limits.iter().filter(|limit| limit["type"] == "Container") {
        let Some(spec) = pod.0.get_mut("spec") else { return };
        let mut set = Vec::new();
        for (field, what) in CONTAINERS {
            for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                let Some(container) = container.as_object_mut() else { continue };
                for (part, default, word) in
                    [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
                {
                    let mut given = fill(container, part, &limit[default]);
                    if !given.is_empty() {
                        given.sort_unstable();
                        set.push(format!("{} {word} for {what} {name}", given.join(", ")));
                    }
                }
            }
        }
        notes = if set.is_empty() { notes } else { set };
    }
    if !notes.is_empty() {
        let annotations = pod.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            let told = format!("LimitRanger plugin set: {}", notes.join("; "));
            annotations.insert(ANNOTATION.into(), told.into());
        }
    }
}

/// Adds amounts that a container lacks; the answer is which.
fn fill(container: &mut Map<String, Value>, part: &str, defaults: &Value) -> Vec<String> {
    let Some(defaults) = defaults.as_object().filter(|defaults| !defaults.is_empty()) else {
        return Vec::new();
    };
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    let Some(resources) = resources.as_object_mut() else { return Vec::new() };
    let amounts = resources.entry(part).or_insert_with(|| json!({}));
    let Some(amounts) = amounts.as_object_mut() else { return Vec::new() };
    let mut given = Vec::new();
    for (resource, amount) in defaults {
        if !amounts.contains_key(resource) {
            amounts.insert(resource.clone(), amount.clone());
            given.push(resource.clone());
        }
    }
    given
}

/// 403 if a pod or a claim leaves the bounds of its namespace.
pub(super) fn check(request: &AdmissionRequest<'_>, object: &Object) -> Result<(), Status> {
    let is_pod = request.named.resource.plural == "pods";
    let concerned = match (is_pod, request.subresource, request.operation) {
        (true, "", Operation::Create) | (true, "resize", Operation::Update) => true,
        (false, "", Operation::Create | Operation::Update) => object.deletion_timestamp().is_none(),
        _ => false,
    };
    if !concerned {
        return Ok(());
    }
    let mut faults = Vec::new();
    for limit in &limits(request.named.namespace, request.state) {
        match (limit["type"].as_str().unwrap_or_default(), is_pod) {
            ("Container", true) => {
                for (field, _) in CONTAINERS {
                    let list = object.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
                    for container in list.into_iter().flatten() {
                        let of = |part: &str| Amounts::of(&container["resources"][part]);
                        judge(limit, "Container", &of("requests"), &of("limits"), &mut faults);
                    }
                }
            }
            ("Pod", true) => {
                let total = pod_resources(object, false);
                judge(limit, "Pod", &total.requests, &total.limits, &mut faults);
            }
            ("PersistentVolumeClaim", false) => judge_claim(limit, object, &mut faults),
            _ => {}
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [fault] => Err(request.named.forbidden(fault)),
        many => Err(request.named.forbidden(&format!("[{}]", many.join(", ")))),
    }
}

fn judge(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    for (resource, least) in Amounts::of(&limit["min"]).iter() {
        let start = format!("minimum {resource} usage per {kind} is {least}");
        match (requests.get(resource), limits.get(resource)) {
            (None, _) => faults.push(format!("{start}.  No request is specified")),
            (Some(asked), _) if asked < least => faults.push(format!("{start}, but request is {asked}")),
            (_, Some(most)) if most < least => faults.push(format!("{start}, but limit is {most}")),
            _ => {}
        }
    }
    for (resource, most) in Amounts::of(&limit["max"]).iter() {
        let start = format!("maximum {resource} usage per {kind} is {most}");
        match (limits.get(resource), requests.get(resource)) {
            (None, _) => faults.push(format!("{start}.  No limit is specified")),
            (Some(limit), _) if limit > most => faults.push(format!("{start}, but limit is {limit}")),
            (_, Some(asked)) if asked > most => faults.push(format!("{start}, but request is {asked}")),
            _ => {}
        }
    }
    for (resource, ratio) in Amounts::of(&limit["maxLimitRequestRatio"]).iter() {
        let start = format!("{resource} max limit to request ratio per {kind} is {ratio}, but");
        let nothing = Quantity::default();
        let given = |amounts: &Amounts| amounts.get(resource).copied().filter(|amount| *amount > nothing);
        let (Some(asked), Some(most)) = (given(requests), given(limits)) else {
            let missing = if given(requests).is_none() { "request" } else { "limit" };
            faults.push(format!("{start} no {missing} is specified or {missing} is 0"));
            continue;
        };
        let is = most.milli() as f64 / asked.milli() as f64;
        if is * 1000.0 > ratio.milli() as f64 {
            faults.push(format!("{start} provided ratio is {is:.6}"));
        }
    }
}

/// Of a claim, only what it asks for counts.
fn judge_claim(limit: &Value, claim: &Object, faults: &mut Vec<String>) {
    let requests = Amounts::of(claim.pointer("/spec/resources/requests").unwrap_or(&Value::Null));
    for (field, word) in [("min", "minimum"), ("max", "maximum")] {
        for (resource, bound) in Amounts::of(&limit[field]).iter() {
            let start = format!("{word} {resource} usage per PersistentVolumeClaim is {bound}");
            match requests.get(resource) {
                None => faults.push(format!("{start}.  No request is specified")),
                Some(asked) if if field == "min" { asked < bound } else { asked > bound } => {
                    faults.push(format!("{start}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
}
