//! Schemas of custom resources: structural ones, which say the type of every field.
//!
//! Follows KEP-1693 and upstream's `pkg/apiserver/schema` of apiextensions-apiserver.

use machinery::{Cause, Faults, SchemaRules, compile_pattern};
use serde_json::Value;

use crate::kinds::field::{self, items, paths, text};

/// Deeper schemas are refused: every object would be walked as deep.
const DEEPEST: usize = 48;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What says something about values that no walk over them could use.
const FORBIDDEN: [&str; 7] =
    ["additionalItems", "definitions", "dependencies", "discriminator", "id", "patternProperties", "$ref"];
/// What only the schema itself may say, not the conditions on it (`allOf`, `anyOf`, `oneOf`, `not`).
const STRUCTURAL: [&str; 10] = [
    "type",
    "default",
    "additionalProperties",
    "title",
    "description",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// What a schema may say at its root where the status is written apart: the status is held against its own part.
const BESIDE_STATUS: [&str; 22] = [
    "description",
    "example",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "uniqueItems",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// The faults of the schema at `path`; `has_status` tells whether the kind has a subresource status.
pub(super) fn validate_schema(schema: &Value, path: &str, has_status: bool, faults: &mut Faults) {
    if schema.is_null() {
        return;
    }
    if has_status {
        for key in schema.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !BESIDE_STATUS.contains(&key.as_str()) {
                let why = format!("{key} may not be at the root if the status subresource is enabled");
                faults.push(Cause::invalid(path, schema, &why));
                break;
            }
        }
    }
    if text(schema, "type") != "object" && !text(schema, "type").is_empty() {
        let why = "must be object at the root";
        faults.push(Cause::invalid(format!("{path}.type"), &schema["type"], why));
    }
    validate_metadata(&schema["properties"]["metadata"], &format!("{path}.properties[metadata]"), faults);
    let is_wrong = faults.iter().any(|fault| fault.field == path);
    if !is_wrong && names_a_dialect(schema, 0) {
        faults.push(Cause::invalid(path, schema, "$schema names a dialect that is not known"));
    }
    Walk { faults, depth: 0 }.schema(schema, path, "at the root");
    SchemaRules::compile(schema, path, faults);
}

/// Whether a schema, or one in it, calls itself one of another dialect.
fn names_a_dialect(schema: &Value, depth: usize) -> bool {
    let Value::Object(map) = schema else {
        return schema
            .as_array()
            .is_some_and(|list| depth <= DEEPEST && list.iter().any(|s| names_a_dialect(s, depth + 1)));
    };
    let own = map.get("$schema").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let among =
        |key: &str| ["allOf", "anyOf", "oneOf", "not", "items", "additionalProperties"].contains(&key);
    own || depth <= DEEPEST
        && map.iter().any(|(key, value)| match key.as_str() {
            "properties" => {
                value.as_object().into_iter().flatten().any(|(_, s)| names_a_dialect(s, depth + 1))
            }
            key => among(key) && names_a_dialect(value, depth + 1),
        })
}

/// The metadata is the same for all kinds: a schema may say a little about the name.
fn validate_metadata(metadata: &Value, path: &str, faults: &mut Faults) {
    for key in metadata["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if key != "name" && key != "generateName" {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            faults.push(Cause::forbidden(path, why));
            return;
        }
    }
}

struct Walk<'a> {
    faults: &'a mut Faults,
    depth: usize,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, path: &str, place: &str) {
        if self.depth > DEEPEST {
            let why = format!("schemas may not be nested deeper than {DEEPEST} levels");
            self.faults.push(Cause::forbidden(path, &why));
            return;
        }
        self.depth += 1;
        self.kind(schema, path, place);
        self.forbidden(schema, path);
        self.list(schema, path);
        self.rules(schema, path);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(property, &format!("{path}.properties[{name}]"), "for specified object fields");
        }
        match &schema["items"] {
            Value::Null => {}
            items @ Value::Object(_) => {
                self.schema(items, &format!("{path}.items"), "for specified array items");
            }
            _ => {
                let why = "items must be a schema object and not an array";
                self.faults.push(Cause::forbidden(format!("{path}.items"), why));
            }
        }
        let values = &schema["additionalProperties"];
        if values.is_object() {
            self.schema(values, &format!("{path}.additionalProperties"), "for specified object fields");
        }
        for list in ["allOf", "anyOf", "oneOf"] {
            for (path, condition) in paths(&schema[list], &format!("{path}.{list}")) {
                self.condition(schema, condition, &path);
            }
        }
        if !schema["not"].is_null() {
            self.condition(schema, &schema["not"], &format!("{path}.not"));
        }
        self.depth -= 1;
    }

    fn kind(&mut self, schema: &Value, path: &str, place: &str) {
        let is_set = |extension: &str| schema[extension] == true;
        let kind = text(schema, "type");
        let path_of_type = format!("{path}.type");
        if is_set("x-kubernetes-int-or-string") {
            if !kind.is_empty() {
                let why = "must be empty if x-kubernetes-int-or-string is true";
                self.faults.push(Cause::forbidden(path_of_type, why));
            }
        } else if kind.is_empty() {
            if !is_set("x-kubernetes-preserve-unknown-fields") || place == "at the root" {
                let why = format!("must not be empty {place}");
                self.faults.push(Cause::required(path_of_type, &why));
            }
        } else if !TYPES.contains(&kind) {
            self.faults.push(Cause::not_supported(path_of_type, &schema["type"], &TYPES));
        }
        if kind == "array" && schema["items"].is_null() {
            self.faults.push(Cause::required(format!("{path}.items"), "must be specified"));
        }
        if is_set("x-kubernetes-embedded-resource") {
            if kind != "object" {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.faults.push(Cause::invalid(format!("{path}.type"), &schema["type"], why));
            }
            let known = schema["properties"].as_object().is_some_and(|map| !map.is_empty());
            if !known && !is_set("x-kubernetes-preserve-unknown-fields") {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                    x-kubernetes-preserve-unknown-fields";
                self.faults.push(Cause::required(format!("{path}.properties"), why));
            }
        }
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.faults.push(Cause::invalid(path, &false.into(), "must be true or undefined"));
        }
    }

    fn forbidden(&mut self, schema: &Value, path: &str) {
        for key in FORBIDDEN.iter().filter(|key| !schema[**key].is_null()) {
            self.faults.push(Cause::forbidden(format!("{path}.{key}"), &format!("{key} is not supported")));
        }
        if schema["uniqueItems"] == true {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.faults.push(Cause::forbidden(format!("{path}.uniqueItems"), why));
        }
        let pattern = text(schema, "pattern");
        if !pattern.is_empty() && compile_pattern(pattern).is_none() {
            let why = "must be a valid regular expression, and no very large one";
            self.faults.push(Cause::invalid(format!("{path}.pattern"), &schema["pattern"], why));
        }
        let values = &schema["additionalProperties"];
        let values_path = format!("{path}.additionalProperties");
        if *values == false {
            let why = "additionalProperties cannot be set to false";
            self.faults.push(Cause::forbidden(&values_path, why));
        }
        let has_properties = schema["properties"].as_object().is_some_and(|map| !map.is_empty());
        if has_properties && !values.is_null() {
            let why = "additionalProperties and properties are mutual exclusive";
            self.faults.push(Cause::forbidden(values_path, why));
        }
    }

    fn list(&mut self, schema: &Value, path: &str) {
        let is_list = text(schema, "type") == "array";
        let keys = &schema["x-kubernetes-list-map-keys"];
        let list_type = &schema["x-kubernetes-list-type"];
        let path_of_type = format!("{path}.x-kubernetes-list-type");
        let path_of_keys = format!("{path}.x-kubernetes-list-map-keys");
        if !list_type.is_null() {
            if !is_list {
                let why = "must be array if x-kubernetes-list-type is specified";
                self.faults.push(Cause::invalid(format!("{path}.type"), &schema["type"], why));
            }
            field::one_of(list_type, path_of_type, &["atomic", "map", "set"], self.faults);
        }
        if list_type != "map" {
            if !items(keys).is_empty() {
                let why = "x-kubernetes-list-type must be map if x-kubernetes-list-map-keys is specified";
                self.faults.push(Cause::invalid(path_of_keys, keys, why));
            }
        } else {
            self.map_keys(schema, keys, path, &path_of_keys);
        }
        let map_type = &schema["x-kubernetes-map-type"];
        if !map_type.is_null() {
            if text(schema, "type") != "object" {
                let why = "must be object if x-kubernetes-map-type is specified";
                self.faults.push(Cause::invalid(format!("{path}.type"), &schema["type"], why));
            }
            let path = format!("{path}.x-kubernetes-map-type");
            field::one_of(map_type, path, &["atomic", "granular"], self.faults);
        }
    }

    /// The keys of a list that is a map must be there in each item.
    fn map_keys(&mut self, schema: &Value, keys: &Value, path: &str, path_of_keys: &str) {
        let why = "must not be empty if x-kubernetes-list-type is map";
        field::require(keys, path_of_keys, why, self.faults);
        let item = &schema["items"];
        if text(item, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.faults.push(Cause::invalid(format!("{path}.items.type"), &item["type"], why));
            return;
        }
        field::unique(keys, path_of_keys, self.faults);
        for (key_path, key) in paths(keys, path_of_keys) {
            let name = key.as_str().unwrap_or_default();
            let property = &item["properties"][name];
            if property.is_null() {
                let why = "entries must all be names of item properties";
                self.faults.push(Cause::invalid(key_path, key, why));
                continue;
            }
            if matches!(text(property, "type"), "array" | "object") {
                let path = format!("{path}.items.properties[{name}].type");
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.faults.push(Cause::invalid(path, &property["type"], why));
            }
            if !items(&item["required"]).contains(key) && property["default"].is_null() {
                let path = format!("{path}.items.properties[{name}].default");
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.faults.push(Cause::required(path, why));
            }
        }
    }

    /// The rules in CEL, as far as they can be told without running them.
    fn rules(&mut self, schema: &Value, path: &str) {
        for (path, rule) in
            paths(&schema["x-kubernetes-validations"], &format!("{path}.x-kubernetes-validations"))
        {
            if text(rule, "rule").trim().is_empty() {
                self.faults.push(Cause::required(format!("{path}.rule"), "rule is not specified"));
            }
            let message = &rule["message"];
            let message_text = text(rule, "message");
            if !message_text.is_empty() && message_text.trim().is_empty() {
                let why = "message must be non-empty if specified";
                self.faults.push(Cause::invalid(format!("{path}.message"), message, why));
            } else if message_text.contains('\n') {
                let why = "message must not contain line breaks";
                self.faults.push(Cause::invalid(format!("{path}.message"), message, why));
            }
        }
    }

    /// A condition may ask more of fields that the schema has, and say nothing new.
    fn condition(&mut self, schema: &Value, condition: &Value, path: &str) {
        if self.depth > DEEPEST {
            return;
        }
        self.depth += 1;
        let alternative_of_both = schema["x-kubernetes-int-or-string"] == true;
        for key in STRUCTURAL.iter().filter(|key| !condition[**key].is_null()) {
            if *key == "type" && alternative_of_both {
                continue;
            }
            self.faults.push(Cause::forbidden(format!("{path}.{key}"), "must be empty to be structural"));
        }
        for key in FORBIDDEN.iter().filter(|key| !condition[**key].is_null()) {
            self.faults.push(Cause::forbidden(format!("{path}.{key}"), &format!("{key} is not supported")));
        }
        for (name, property) in condition["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.properties[{name}]");
            let known = &schema["properties"][name.as_str()];
            if known.is_null() && schema["additionalProperties"].is_null() {
                let why = "must be specified by the schema that the condition is on";
                self.faults.push(Cause::required(&path, why));
            }
            self.condition(known, property, &path);
        }
        if condition["items"].is_object() {
            self.condition(&schema["items"], &condition["items"], &format!("{path}.items"));
        }
        for list in ["allOf", "anyOf", "oneOf"] {
            for (path, inner) in paths(&condition[list], &format!("{path}.{list}")) {
                self.condition(schema, inner, &path);
            }
        }
        self.depth -= 1;
    }
}
