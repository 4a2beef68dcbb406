//! Requests for certificates: who asks is who sends them, and every decision has its time.

use api::Object;
use serde_json::{Value, json};

use crate::clock;
use crate::http::Identity;

/// The request is the sender's own, whatever it says.
pub(super) fn on_create(who: &Identity, object: &mut Object) {
    if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
        for field in ["uid", "extra"] {
            spec.shift_remove(field);
        }
        spec.insert("username".into(), who.user.as_str().into());
        spec.insert("groups".into(), json!(who.groups));
    }
}

/// The times of conditions that are new or changed.
pub(super) fn on_update(object: &mut Object, old: &Object) {
    let before = old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let status = object.0.get_mut("status");
    let conditions = status.and_then(|status| status.get_mut("conditions")).and_then(Value::as_array_mut);
    let now = Value::from(clock::text(clock::now()));
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.clone();
        }
        let known = before.iter().find(|known| known["type"] == condition["type"]);
        let known = known.filter(|known| known["status"] == condition["status"]);
        if condition["lastTransitionTime"].is_null() {
            let since =
                known.map(|known| known["lastTransitionTime"].clone()).filter(|since| !since.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
        }
    }
}
