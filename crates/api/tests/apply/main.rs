//! Server-side apply: laws that hold for all objects, and a table of what upstream does.

#![allow(missing_docs, clippy::unwrap_used)]

mod laws;
mod table;

use api::resource;
use machinery::{FieldManager, Object, Patch, Resource, Status, Typing};
use serde_json::{Value, json};

pub const NOW: &str = "2026-01-01T00:00:00Z";

pub fn deployments() -> &'static Resource {
    resource("apps", "v1", "deployments").unwrap()
}

pub fn manager(name: &str) -> FieldManager<'_> {
    let typing = Typing::Resource(deployments());
    let api_version = "apps/v1";
    FieldManager { name, api_version, subresource: "", typing, has_status: true, now: NOW, conversions: None }
}

/// A deployment of this spec.
pub fn deployment(spec: &Value) -> Object {
    let value =
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": spec});
    Object::from_value(value).unwrap()
}

pub fn apply(
    by: FieldManager<'_>,
    live: Option<&Object>,
    patch: &Object,
    force: bool,
) -> Result<Object, Status> {
    let mut applied = by.apply(live, &Patch { object: patch, force })?;
    if let Typing::Resource(resource) = by.typing {
        machinery::check(resource, &mut applied).unwrap();
    }
    Ok(applied)
}

/// The `fieldsV1` of a manager, `null` if it has no entry.
pub fn fields(object: &Object, manager: &str) -> Value {
    let entries = object.meta("managedFields").and_then(Value::as_array);
    let entry = entries.into_iter().flatten().find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}
