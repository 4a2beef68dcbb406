//! `apply`: an object of a manifest into the cluster, as kubectl's client-side apply does it.

use crate::schema::Schemas;
use crate::three_way;
use crate::{Client, Content, Discovery, Error};
use http::Method;
use serde_json::{Map, Value, json};

/// The annotation in which the manifest applied last is kept.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const QUERY: &str = "?fieldManager=kubectl-client-side-apply&fieldValidation=Strict";

/// What became of an object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What to call it: `deployment.apps/web`.
    pub name: String,
    /// `created`, `configured` or `unchanged`.
    pub outcome: &'static str,
    /// The object as it is now.
    pub object: Value,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Creates the object, or changes the live one by a three-way merge with the manifest applied last. Unknown
/// fields are refused. `namespace` is for objects of a namespaced kind that name none.
pub async fn apply(
    client: &Client,
    discovery: &Discovery,
    object: &Value,
    namespace: &str,
) -> Result<Applied, Error> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let resource = discovery.of_kind(text("/apiVersion"), text("/kind"))?;
    let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Error::Manifest {
            origin: resource.typed(),
            why: "apply needs metadata.name; an object with generateName can only be created".into(),
        });
    };
    let mut object = object.clone();
    if resource.namespaced && object.pointer("/metadata/namespace").is_none_or(|n| n.is_null() || n == "") {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
    let collection = resource.path(namespace.as_deref(), None);
    let path = resource.path(namespace.as_deref(), Some(&name));
    let new = annotated(&object);
    let called = format!("{}/{name}", resource.typed());

    let live = match client.get(&path).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => {
            let made =
                client.send(Method::POST, &format!("{collection}{QUERY}"), Content::Json, &new).await?;
            let object = made.json()?;
            return Ok(Applied { name: called, outcome: "created", object, warnings: made.warnings });
        }
        Err(error) => return Err(error),
    };
    let mut warnings = Vec::new();
    let annotation = live.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED));
    let last = match annotation.and_then(Value::as_str) {
        Some(last) => serde_json::from_str(last).unwrap_or(Value::Null),
        None => {
            warnings.push(format!(
                "resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by apply; \
                 it is added now, and fields that the manifest had before are kept",
                resource.plural
            ));
            Value::Null
        }
    };
    let schemas = Schemas::ask(client, resource).await?;
    let schema = schemas.as_ref().and_then(|s| s.of(resource));
    let patch = three_way::patch(&last, &new, &live, schema);
    if patch.as_object().is_none_or(Map::is_empty) {
        return Ok(Applied { name: called, outcome: "unchanged", object: live, warnings });
    }
    let content = if schema.is_some() { Content::StrategicMergePatch } else { Content::MergePatch };
    let changed = client.send(Method::PATCH, &format!("{path}{QUERY}"), content, &patch).await?;
    warnings.extend(changed.warnings.iter().cloned());
    Ok(Applied { name: called, outcome: "configured", object: changed.json()?, warnings })
}

/// The object with the annotation that says what was applied.
fn annotated(object: &Value) -> Value {
    let mut plain = object.clone();
    let metadata = plain.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        match annotations.as_object_mut() {
            Some(annotations) => drop(annotations.remove(LAST_APPLIED)),
            None => *annotations = json!({}),
        }
    }
    // The line end is kubectl's (`GetModifiedConfiguration`): without it each of the two would find the other's
    // annotation changed.
    let applied = format!("{plain}\n");
    let mut with = plain;
    with["metadata"]["annotations"][LAST_APPLIED] = Value::String(applied);
    with
}
