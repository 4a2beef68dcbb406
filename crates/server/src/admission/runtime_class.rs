//! What a pod's runtime class brings: what it costs beside the containers, and the nodes that have it.
//!
//! Follows `plugin/pkg/admission/runtimeclass` upstream.

use api::Amounts;
use machinery::{Object, Status};
use objects::look;
use serde_json::{Map, Value, json};

use super::request::{AdmissionRequest, Operation};

const UNDEFINED: &str = "Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// Completes a new pod by its runtime class, which must be there.
pub(super) fn complete(request: &AdmissionRequest<'_>, pod: &mut Object) -> Result<(), Status> {
    let refused = |why: &str| Err(request.named.forbidden(&format!("pod rejected: {why}")));
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return Ok(()) };
    let given = spec.get("overhead").map(Amounts::of).filter(|overhead| !overhead.is_empty());
    // An empty one is set too, and goes before others would look at it.
    let is_empty = spec.get("overhead").and_then(Value::as_object).is_some_and(Map::is_empty);
    let Some(name) = spec.get("runtimeClassName").and_then(Value::as_str).map(str::to_owned) else {
        return if is_empty { refused(UNDEFINED) } else { Ok(()) };
    };
    if let Some(why) = unaskable(&name) {
        return Err(Status::new(500, "", why));
    }
    let key = objects::key("node.k8s.io", "runtimeclasses", "", &name);
    let Some(kv) = request.state.get(key.as_bytes()) else {
        return refused(&format!("RuntimeClass {name:?} not found"));
    };
    let class = look(kv)?;
    match (class.pointer("/overhead/podFixed"), given) {
        (Some(fixed), Some(given)) if Amounts::of(fixed) != given => {
            return refused("Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        (Some(fixed), None) => _ = spec.insert("overhead".into(), fixed.clone()),
        (None, Some(_)) => return refused(UNDEFINED),
        (None, None) if is_empty => return refused(UNDEFINED),
        _ => {}
    }
    let null = Value::Null;
    let scheduling = class.0.get("scheduling").unwrap_or(&null);
    if let Err(why) = merge_selector(spec, &scheduling["nodeSelector"]) {
        return Err(request.named.forbidden(&why));
    }
    merge_tolerations(spec, &scheduling["tolerations"]);
    Ok(())
}

/// Why a class of that name can't be asked for: upstream's client, which gets the class from the API, finds no path for it.
fn unaskable(name: &str) -> Option<String> {
    let why = match name {
        "" => return Some("resource name may not be empty".to_owned()),
        "." | ".." => format!("may not be '{name}'"),
        _ => {
            let odd = ['/', '%'].into_iter().filter(|c| name.contains(*c));
            odd.map(|c| format!("may not contain '{c}'")).collect::<Vec<_>>().join(" ")
        }
    };
    (!why.is_empty()).then(|| format!("invalid resource name {name:?}: [{why}]"))
}

/// What a pod takes besides its containers is its class's to say.
pub(super) fn check(request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let spec = pod.0.get("spec").unwrap_or(&Value::Null);
    if request.operation == Operation::Create
        && !spec["overhead"].is_null()
        && spec["runtimeClassName"].is_null()
    {
        return Err(request.named.forbidden(&format!("pod rejected: {UNDEFINED}")));
    }
    Ok(())
}

fn merge_selector(spec: &mut Map<String, Value>, wanted: &Value) -> Result<(), String> {
    let Some(wanted) = wanted.as_object().filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let selector = spec.entry("nodeSelector").or_insert_with(|| json!({}));
    let Some(selector) = selector.as_object_mut() else { return Ok(()) };
    for (label, value) in wanted {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match selector.get(label).filter(|has| *has != value) {
            Some(has) => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; \
                     pod.spec.nodeSelector[{label}] = {}",
                    text(value),
                    text(has)
                ));
            }
            None => _ = selector.insert(label.clone(), value.clone()),
        }
    }
    Ok(())
}

fn merge_tolerations(spec: &mut Map<String, Value>, wanted: &Value) {
    let Some(wanted) = wanted.as_array().filter(|wanted| !wanted.is_empty()) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for toleration in wanted {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
}
