//! What a server for tests does with objects: selects, patches and lists them.

use serde_json::{Value, json};

/// The app whose pods a query selects.
pub(crate) fn app(query: &str) -> Option<&str> {
    query.split_once("app%3D")?.1.split('&').next()
}

pub(crate) fn is_of(object: &Value, app: Option<&str>) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    app.is_none_or(|app| name.split('-').next() == Some(app))
}

/// Merges a patch into an object (RFC 7386), which has no nulls.
pub(crate) fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (name, value) in fields {
        merge(&mut object[name.as_str()], value);
    }
}

pub(crate) fn discovery(group: &str, kinds: &[(&str, &str)]) -> Value {
    let resources: Vec<Value> = kinds
        .iter()
        .map(|(kind, plural)| {
            json!({"resource": plural, "singularResource": kind.to_lowercase(), "scope": "Namespaced",
                   "responseKind": {"kind": kind}})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "items": [
        {"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]}]})
}
