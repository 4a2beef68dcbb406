//! What is asked of the schemas that a definition gets, and not of those that it has already: a change of something else
//! isn't held up by them.

use machinery::{Cause, Faults, SchemaRules, validate_defaults};
use serde_json::Value;

use super::same::{all_share, same_part};
use crate::kinds::field::{items, paths, text};

/// Deeper schemas are refused elsewhere.
const DEEPEST: usize = 64;
const LONGEST_MESSAGE: usize = 2048;
const RULES: &str = "x-kubernetes-validations";

/// The faults of the versions' schemas that `old` doesn't have.
pub(super) fn validate_fresh(spec: &Value, old: &Value, faults: &mut Faults) {
    let versions = &spec["versions"];
    let stays = |version: &Value| {
        let before = items(&old["versions"]).iter().find(|before| before["name"] == version["name"]);
        before.is_some_and(|before| same_part(&before["schema"], &version["schema"]))
    };
    let check = |version: &Value, path: &str, faults: &mut Faults| {
        let schema = &version["schema"]["openAPIV3Schema"];
        if !schema.is_null() && !stays(version) {
            let path = format!("{path}.openAPIV3Schema");
            validate_below(schema, &path, 0, faults);
            // Where the schema itself is wrong, nothing can be held against it.
            if !faults.iter().any(|fault| fault.field.starts_with(&path)) {
                validate_defaults(schema, &path, faults);
            }
            SchemaRules::check_costs(schema, &path, faults);
        }
    };
    let Some(first) = items(versions).first() else { return };
    // What all versions share, upstream names once, as if it stood beside them.
    if all_share(items(versions), "schema") {
        check(first, "spec.validation", faults);
        return;
    }
    for (path, version) in paths(versions, "spec.versions") {
        check(version, &format!("{path}.schema"), faults);
    }
}

fn validate_below(schema: &Value, path: &str, depth: usize, faults: &mut Faults) {
    if depth > DEEPEST {
        return;
    }
    validate_set(schema, path, faults);
    for (path, rule) in paths(&schema[RULES], &format!("{path}.{RULES}")) {
        validate_message(rule, &path, faults);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        validate_below(property, &format!("{path}.properties[{name}]"), depth + 1, faults);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            validate_below(&schema[key], &format!("{path}.{key}"), depth + 1, faults);
        }
    }
}

/// The items of a set are compared as a whole, so nobody can own a part of one.
fn validate_set(schema: &Value, path: &str, faults: &mut Faults) {
    if schema["type"] != "array" || schema["x-kubernetes-list-type"] != "set" {
        return;
    }
    let item = &schema["items"];
    let (key, is_atomic) = match text(item, "type") {
        // Lists are atomic where they don't say otherwise, and objects are not.
        "array" => ("x-kubernetes-list-type", matches!(text(item, "x-kubernetes-list-type"), "" | "atomic")),
        "object" => ("x-kubernetes-map-type", text(item, "x-kubernetes-map-type") == "atomic"),
        _ => return,
    };
    if !is_atomic {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        // Upstream shows the type of the list in both cases.
        let value = &item["x-kubernetes-list-type"];
        faults.push(Cause::invalid(format!("{path}.items.{key}"), value, why));
    }
}

/// The message of a rule is the rule itself where it has none, and a message is one line.
fn validate_message(rule: &Value, path: &str, faults: &mut Faults) {
    let message = text(rule, "message");
    if message.len() > LONGEST_MESSAGE {
        let begin = format!("{}...", message.chars().take(10).collect::<String>());
        let why = "message must have a maximum length of 2048 characters";
        faults.push(Cause::invalid(format!("{path}.message"), &begin.into(), why));
    } else if message.is_empty() && text(rule, "rule").trim().contains(['\n', '\r']) {
        let why = "message must be specified if rule contains line breaks";
        faults.push(Cause::required(format!("{path}.message"), why));
    }
    let expression = text(rule, "messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        faults.push(Cause::required(format!("{path}.messageExpression"), why));
    }
}
