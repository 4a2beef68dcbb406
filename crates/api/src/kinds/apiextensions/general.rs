//! What is asked of every schema of a custom resource, those inside conditions included.
//!
//! Follows `ValidateCustomResourceDefinitionOpenAPISchema` of apiextensions-apiserver.

use machinery::{Cause, Faults, REASONS, field_path};
use serde_json::Value;

use super::structural::DEEPEST;
use crate::kinds::field::{self, items, paths, text};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const RULES: &str = "x-kubernetes-validations";

/// The faults of the schema at `path` and of all schemas in it.
pub(super) fn validate(schema: &Value, path: &str, depth: usize, faults: &mut Faults) {
    if schema.is_null() {
        return;
    }
    if depth > DEEPEST {
        let why = format!("schemas may not be nested deeper than {DEEPEST} levels");
        return faults.push(Cause::forbidden(path, &why));
    }
    validate_unsupported(schema, path, faults);
    validate_type(schema, path, faults);
    validate_list(schema, path, faults);
    for (path, rule) in paths(&schema[RULES], &format!("{path}.{RULES}")) {
        validate_rule(schema, rule, &path, faults);
    }
    let mut below = |schema: &Value, path: &str| validate(schema, path, depth + 1, faults);
    for map in ["properties", "definitions"] {
        for (name, schema) in schema[map].as_object().into_iter().flatten() {
            below(schema, &format!("{path}.{map}[{name}]"));
        }
    }
    for key in ["additionalProperties", "items", "not"] {
        if schema[key].is_object() {
            below(&schema[key], &format!("{path}.{key}"));
        }
    }
    for list in ["allOf", "anyOf", "oneOf", "items"] {
        for (path, schema) in paths(&schema[list], &format!("{path}.{list}")) {
            below(schema, &path);
        }
    }
}

/// What JSON Schema has and Kubernetes has not.
fn validate_unsupported(schema: &Value, path: &str, faults: &mut Faults) {
    let has = |key: &str| match &schema[key] {
        Value::Object(map) => !map.is_empty() || key == "dependencies" || key == "additionalItems",
        Value::String(text) => !text.is_empty() || key == "$ref",
        other => !other.is_null(),
    };
    let unsupported = ["additionalItems", "definitions", "dependencies", "id", "patternProperties", "$ref"];
    for key in unsupported.into_iter().filter(|key| has(key)) {
        faults.push(Cause::forbidden(format!("{path}.{key}"), &format!("{key} is not supported")));
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        faults.push(Cause::forbidden(format!("{path}.uniqueItems"), why));
    }
    if !items(&schema["items"]).is_empty() {
        let why = "items must be a schema object and not an array";
        faults.push(Cause::forbidden(format!("{path}.items"), why));
    }
    let values = &schema["additionalProperties"];
    let has_properties = schema["properties"].as_object().is_some_and(|map| !map.is_empty());
    if has_properties && (values.is_object() || *values == false) {
        let why = "additionalProperties and properties are mutual exclusive";
        faults.push(Cause::forbidden(format!("{path}.additionalProperties"), why));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
        faults.push(Cause::invalid(path, &false.into(), "must be true or undefined"));
    }
}

fn validate_type(schema: &Value, path: &str, faults: &mut Faults) {
    let (kind, path_of_type) = (text(schema, "type"), format!("{path}.type"));
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        faults.push(Cause::forbidden(&path_of_type, why));
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        faults.push(Cause::not_supported(&path_of_type, &schema["type"], &TYPES));
    }
    for (extension, wanted) in [("x-kubernetes-map-type", "object"), ("x-kubernetes-list-type", "array")] {
        if schema[extension].is_null() || kind == wanted {
            continue;
        }
        let why = format!("must be {wanted} if {extension} is specified");
        faults.push(match kind {
            "" => Cause::required(&path_of_type, &why),
            _ => Cause::invalid(&path_of_type, &schema["type"], &why),
        });
    }
}

fn validate_list(schema: &Value, path: &str, faults: &mut Faults) {
    let map_type = &schema["x-kubernetes-map-type"];
    if !map_type.is_null() {
        field::one_of(map_type, format!("{path}.x-kubernetes-map-type"), &["atomic", "granular"], faults);
    }
    let (list_type, keys) = (&schema["x-kubernetes-list-type"], &schema["x-kubernetes-list-map-keys"]);
    let path_of_type = format!("{path}.x-kubernetes-list-type");
    if !list_type.is_null() {
        field::one_of(list_type, &path_of_type, &["atomic", "map", "set"], faults);
    }
    if !items(keys).is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        faults.push(match list_type {
            Value::Null => Cause::required(path_of_type, why),
            other => Cause::invalid(path_of_type, other, why),
        });
    }
    let item = &schema["items"];
    if (list_type == "set" || list_type == "map") && item["nullable"] == true {
        let why = format!(
            "cannot be nullable when x-kubernetes-list-type is {}",
            text(schema, "x-kubernetes-list-type")
        );
        faults.push(Cause::forbidden(format!("{path}.items.nullable"), &why));
    }
    if list_type == "map" {
        validate_keys(keys, item, path, faults);
    }
}

/// The keys of a list that is a map must be there in each item.
fn validate_keys(keys: &Value, item: &Value, path: &str, faults: &mut Faults) {
    let path_of_keys = format!("{path}.x-kubernetes-list-map-keys");
    let why = "must not be empty if x-kubernetes-list-type is map";
    field::require(keys, &path_of_keys, why, faults);
    if !item.is_object() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        return faults.push(Cause::required(format!("{path}.items"), why));
    }
    if text(item, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        faults.push(Cause::invalid(format!("{path}.items.type"), &item["type"], why));
    }
    for (index, key) in items(keys).iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = &item["properties"][name];
        let path = format!("{path}.items.properties[{name}]");
        if text(item, "type") == "object" {
            if property.is_null() {
                let why = "entries must all be names of item properties";
                faults.push(Cause::invalid(&path_of_keys, keys, why));
            } else if matches!(text(property, "type"), "array" | "object") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                faults.push(Cause::invalid(format!("{path}.type"), &property["type"], why));
            }
            if items(keys)[..index].contains(key) {
                let why = "must not contain duplicate entries";
                faults.push(Cause::invalid(&path_of_keys, keys, why));
            }
        }
        if property.is_null() {
            continue;
        }
        if !items(&item["required"]).contains(key) && property["default"].is_null() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            faults.push(Cause::required(format!("{path}.default"), why));
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            faults.push(Cause::forbidden(format!("{path}.nullable"), why));
        }
    }
}

/// A rule in CEL, as far as it can be judged without compiling it.
fn validate_rule(schema: &Value, rule: &Value, path: &str, faults: &mut Faults) {
    let message = text(rule, "message");
    if text(rule, "rule").trim().is_empty() {
        faults.push(Cause::required(format!("{path}.rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        faults.push(Cause::invalid(format!("{path}.message"), &rule["message"], why));
    } else if message.trim().contains(['\n', '\r']) {
        let why = "message must not contain line breaks";
        faults.push(Cause::invalid(format!("{path}.message"), &rule["message"], why));
    }
    if !rule["reason"].is_null() {
        field::one_of(&rule["reason"], format!("{path}.reason"), &REASONS, faults);
    }
    let place = text(rule, "fieldPath");
    let why = match place {
        "" => return,
        _ if place.trim().is_empty() => "must be non-empty if specified",
        _ if place.contains(['\n', '\r']) => "must not contain line breaks",
        _ if field_path(schema, place.trim()).is_ok() => return,
        _ => "must be a valid path",
    };
    faults.push(Cause::invalid(format!("{path}.fieldPath"), &rule["fieldPath"], why));
}
