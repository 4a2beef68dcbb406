//! `Table` and `PartialObjectMetadata` of meta.k8s.io/v1: what `kubectl get` prints.

use serde_json::{Value, json};

use crate::object::Object;
use crate::resource::Resource;

/// How much of each object a table carries along: `includeObject` of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// The table of `objects`, with ages as of `now` in Unix seconds; `list_meta` is the list's metadata.
pub fn table(
    resource: &Resource,
    objects: &[Object],
    list_meta: &Value,
    include: Include,
    now: i64,
) -> Value {
    let columns = || {
        resource.rules.columns().iter().map(|column| {
            // By this format `kubectl` knows the column of names; upstream gives it to attachers too.
            let format = if matches!(column.name, "Name" | "Attacher") { "name" } else { "" };
            json!({
                "name": column.name, "type": column.kind, "format": format,
                "description": "", "priority": column.priority,
            })
        })
    };
    let rows = objects.iter().map(|object| {
        let cells = match &resource.custom {
            Some(custom) => custom.cells(object, now),
            None => resource.rules.cells(object, now),
        };
        let mut row = json!({ "cells": cells });
        row["object"] = match include {
            Include::None => Value::Null,
            Include::Metadata => partial_metadata(resource, object),
            Include::Object => Value::Object(object.0.clone()),
        };
        row
    });
    let columns = resource.custom.as_ref().map_or_else(|| columns().collect(), |custom| custom.columns());
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": columns, "rows": rows.collect::<Value>(),
    })
}

/// The object's metadata as an object of its own.
pub fn partial_metadata(resource: &Resource, object: &Object) -> Value {
    let mut metadata = object.0.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(made_up) = resource.rules.made_up_annotation()
        && let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
    {
        annotations.remove(made_up);
        if annotations.is_empty()
            && let Value::Object(metadata) = &mut metadata
        {
            metadata.remove("annotations");
        }
    }
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}
