//! What is particular about namespaces: their `spec.finalizers` keep them until their content is gone.

use machinery::Object;
use serde_json::{Value, json};

/// Whether a namespace's own finalizers are gone; always true for other kinds.
pub(super) fn is_empty(object: &Object) -> bool {
    if object.kind() != "Namespace" || object.api_version() != "v1" {
        return true;
    }
    object.pointer("/spec/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

/// Marks a namespace as going away.
pub(super) fn terminate(namespace: &mut Object) {
    let status = namespace.0.entry("status").or_insert_with(|| json!({}));
    if !status.is_object() {
        *status = json!({});
    }
    status["phase"] = json!("Terminating");
}
