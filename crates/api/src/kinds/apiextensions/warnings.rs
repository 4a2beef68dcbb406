//! What the writer of a definition should hear of its schemas.

use machinery::{Object, is_known_format};
use serde_json::Value;

use super::structural::DEEPEST;
use crate::kinds::field::{items, part, text};

/// Formats that nobody checks, and sets of what can't be told apart.
pub(super) fn schema_warnings(definition: &Object) -> Vec<String> {
    let mut said = Vec::new();
    for version in items(&part(definition, "spec")["versions"]) {
        of_schema(&version["schema"]["openAPIV3Schema"], &mut said, 0);
    }
    said
}

fn of_schema(schema: &Value, said: &mut Vec<String>, depth: usize) {
    if depth > DEEPEST {
        return;
    }
    let mut say = |warning: String| {
        if !said.contains(&warning) {
            said.push(warning);
        }
    };
    let format = text(schema, "format");
    if !format.is_empty() && !is_known_format(text(schema, "type"), format) {
        say(format!("unrecognized format {format:?}"));
    }
    let kind = text(&schema["items"], "type");
    if schema["x-kubernetes-list-type"] == "set" && matches!(kind, "object" | "array") {
        say(format!(
            "x-kubernetes-list-type: set for items of type {kind:?} is not supported by server-side apply or CEL validation rules"
        ));
    }
    for inner in ["items", "additionalProperties", "not"] {
        if schema[inner].is_object() {
            of_schema(&schema[inner], said, depth + 1);
        }
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        items(&schema[list]).iter().for_each(|inner| of_schema(inner, said, depth + 1));
    }
    for property in schema["properties"].as_object().into_iter().flat_map(|all| all.values()) {
        of_schema(property, said, depth + 1);
    }
}
