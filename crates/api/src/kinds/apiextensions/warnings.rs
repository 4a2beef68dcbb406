//! What the writer of a definition should hear of its schemas.

use std::collections::HashSet;

use machinery::{Object, is_known_format};
use serde_json::Value;

use super::structural::DEEPEST;
use crate::kinds::field::{items, part, text};

/// Formats that nobody checks, and sets of what can't be told apart.
pub(super) fn schema_warnings(definition: &Object) -> Vec<String> {
    let (mut said, mut known) = (Vec::new(), HashSet::new());
    for version in items(&part(definition, "spec")["versions"]) {
        of_schema(
            &version["schema"]["openAPIV3Schema"],
            &mut |warning| {
                if known.insert(warning.clone()) {
                    said.push(warning);
                }
            },
            0,
        );
    }
    said
}

fn of_schema(schema: &Value, say: &mut impl FnMut(String), depth: usize) {
    if depth > DEEPEST {
        return;
    }
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
            of_schema(&schema[inner], say, depth + 1);
        }
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        items(&schema[list]).iter().for_each(|inner| of_schema(inner, say, depth + 1));
    }
    for property in schema["properties"].as_object().into_iter().flat_map(|all| all.values()) {
        of_schema(property, say, depth + 1);
    }
}
