//! What the expressions of policies and conditions may use.

use std::sync::OnceLock;

use cel::{Environment, Type};
use serde_json::{Value, json};

/// The type of `authorizer`.
pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of `authorizer.requestResource`.
pub(super) const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// The environment of a condition; what else there is comes on top.
pub(super) fn environment(has_params: bool) -> Environment<'static> {
    let environment = Environment::default()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("request", Type::of_schema(request()))
        .with("authorizer", Type::Opaque(AUTHORIZER))
        .with("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK));
    if has_params { environment.with("params", Type::Dyn) } else { environment }
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn texts(names: &[&str]) -> Value {
    object(names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect())
}

/// `AdmissionRequest`.
pub(super) fn request() -> &'static Value {
    static REQUEST: OnceLock<Value> = OnceLock::new();
    REQUEST.get_or_init(|| {
        let kind = texts(&["group", "version", "kind"]);
        let resource = texts(&["group", "version", "resource"]);
        let text = json!({"type": "string"});
        let list = json!({"type": "array", "items": text});
        object(json!({
            "kind": kind, "resource": resource, "subResource": text,
            "requestKind": kind, "requestResource": resource, "requestSubResource": text,
            "name": text, "namespace": text, "operation": text, "dryRun": {"type": "boolean"},
            "options": {"x-kubernetes-preserve-unknown-fields": true},
            "userInfo": object(json!({
                "username": text, "uid": text, "groups": list,
                "extra": {"type": "object", "additionalProperties": list},
            })),
        }))
    })
}

/// A namespace, as far as expressions may see it.
pub(super) fn namespace() -> &'static Value {
    static NAMESPACE: OnceLock<Value> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
        let time = json!({"type": "string", "format": "date-time"});
        let map = json!({"type": "object", "additionalProperties": text});
        let list = json!({"type": "array", "items": text});
        object(json!({
            "metadata": object(json!({
                "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text,
                "labels": map, "annotations": map, "finalizers": list, "generation": number,
                "creationTimestamp": time, "deletionTimestamp": time, "deletionGracePeriodSeconds": number,
            })),
            "spec": object(json!({"finalizers": list})),
            "status": object(json!({"phase": text})),
        }))
    })
}
