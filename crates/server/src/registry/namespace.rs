//! What is particular about namespaces: their `spec.finalizers` keep them until their content is gone, and some stay for ever.

use machinery::{Object, Status};
use objects::Named;
use serde_json::{Value, json};

/// Those that nobody deletes, not even an administrator: the cluster's own objects are there (upstream's plugin NamespaceLifecycle).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Whether an object may be deleted, as far as it is a namespace.
pub(super) fn check_delete(named: &Named<'_>) -> Result<(), Status> {
    let is_namespace = (named.resource.group, named.resource.plural) == ("", "namespaces");
    if is_namespace && IMMORTAL.contains(&named.name) {
        return Err(named.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}

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
