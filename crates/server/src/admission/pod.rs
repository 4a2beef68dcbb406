//! What a new pod gets and needs: a service account, a priority, a runtime class that exists.

use api::{Object, Status};
use serde_json::{Map, Value, json};
use store::State;

use crate::registry::Named;

/// The service account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

pub(super) fn on_create(named: &Named<'_>, pod: &mut Object, state: &State) -> Result<(), Status> {
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return Ok(()) };
    set_service_account(spec);
    if text(spec, "priorityClassName").is_empty() {
        spec.entry("priority").or_insert(json!(0));
        spec.entry("preemptionPolicy").or_insert(json!("PreemptLowerPriority"));
    }
    let class = text(spec, "runtimeClassName");
    let key = objects::key("node.k8s.io", "runtimeclasses", "", class);
    if !class.is_empty() && state.get(key.as_bytes()).is_none() {
        return Err(named.forbidden(&format!("pod rejected: RuntimeClass {class:?} not found")));
    }
    Ok(())
}

/// `serviceAccount` is the deprecated name of `serviceAccountName`; both are kept the same.
fn set_service_account(spec: &mut Map<String, Value>) {
    let given = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")];
    let account = given.into_iter().find(|account| !account.is_empty()).unwrap_or(DEFAULT_ACCOUNT).to_owned();
    spec.insert("serviceAccountName".into(), json!(account));
    spec.insert("serviceAccount".into(), json!(account));
}

fn text<'a>(spec: &'a Map<String, Value>, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}
