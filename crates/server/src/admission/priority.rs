//! How important a pod is: its priority class alone says it.
//!
//! Follows `plugin/pkg/admission/priority` upstream.

use std::sync::Arc;

use machinery::{Object, Status};
use objects::look;
use serde_json::{Value, json};
use store::{KeyRange, State};

use super::request::AdmissionRequest;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPTS: &str = "PreemptLowerPriority";

/// Gives a new pod the priority of its class, or of the default one.
pub(super) fn complete(request: &AdmissionRequest<'_>, pod: &mut Object) -> Result<(), Status> {
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return Ok(()) };
    let name = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        default_class(request.state)?
    } else {
        let key = objects::key(GROUP, "priorityclasses", "", &name);
        let Some(kv) = request.state.get(key.as_bytes()) else {
            let why = format!("no PriorityClass with name {name} was found");
            return Err(request.named.forbidden(&why));
        };
        Some(look(kv)?)
    };
    let field = |field: &str| class.as_ref().and_then(|class| class.0.get(field));
    let value = field("value").and_then(Value::as_i64).unwrap_or(0);
    let policy = field("preemptionPolicy").and_then(Value::as_str).unwrap_or(PREEMPTS).to_owned();
    if let Some(given) = spec.get("priority").and_then(Value::as_i64).filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
             controller computed {value} from the given PriorityClass name"
        );
        return Err(request.named.forbidden(&why));
    }
    let given = spec.get("preemptionPolicy").and_then(Value::as_str);
    if let Some(given) = given.filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(request.named.forbidden(&why));
    }
    if let Some(class) = &class {
        spec.insert("priorityClassName".into(), class.name().into());
    }
    spec.insert("priority".into(), json!(value));
    spec.insert("preemptionPolicy".into(), json!(policy));
    Ok(())
}

/// A change that says nothing of it keeps what the pod got.
pub(super) fn keep(pod: &mut Object, old: &Object) {
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return };
    for field in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.pointer(&format!("/spec/{field}")) {
            spec.entry(field).or_insert_with(|| value.clone());
        }
    }
}

/// The class of pods that name none; of several the least important one.
fn default_class(state: &State) -> Result<Option<Arc<Object>>, Status> {
    let mut found: Option<Arc<Object>> = None;
    for kv in state.range(&KeyRange::prefix(objects::kind_prefix(GROUP, "priorityclasses"))) {
        let class = look(kv)?;
        let value = |class: &Object| class.0.get("value").and_then(Value::as_i64);
        let is_default = class.0.get("globalDefault") == Some(&Value::Bool(true));
        if is_default && found.as_ref().is_none_or(|found| value(&class) < value(found)) {
            found = Some(class);
        }
    }
    Ok(found)
}
