//! Schemas of custom resources: structural ones, which say the type of every field.
//!
//! Follows KEP-1693 and upstream's `pkg/apiserver/schema` of apiextensions-apiserver.

use super::general;
use crate::kinds::field::{items, paths, text};
use machinery::{Cause, Faults, SchemaRules, compile_pattern};
use serde_json::{Value, json};

/// Deeper schemas are refused: every object would be walked as deep.
pub(super) const DEEPEST: usize = 48;

/// What only the schema itself may say, not the conditions on it (`allOf`, `anyOf`, `oneOf`, `not`).
/// Each with what upstream says that it must be.
const STRUCTURAL: [(&str, &str); 13] = [
    ("type", "empty"),
    ("additionalProperties", "undefined"),
    ("default", "undefined"),
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    ("x-kubernetes-preserve-unknown-fields", "false"),
    ("x-kubernetes-embedded-resource", "false"),
    ("x-kubernetes-int-or-string", "false"),
    ("x-kubernetes-list-map-keys", "empty"),
    ("x-kubernetes-list-type", "undefined"),
    ("x-kubernetes-map-type", "undefined"),
    ("x-kubernetes-validations", "empty"),
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
    let mut own = Faults::default();
    if has_status {
        validate_beside_status(schema, path, &mut own);
    }
    if schema["nullable"] == true {
        own.push(Cause::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut general = Faults::default();
    general::validate(schema, path, 0, &mut general);
    let of_schemas: Vec<String> = general.iter().map(|fault| fault.field.clone()).collect();
    if !has_unknown_words(schema, 0) {
        let mut found = Faults::default();
        let mut walk = Walk { faults: &mut found, depth: 0 };
        walk.schema(schema, path, Place::Root);
        walk.complete(schema, schema, path, path);
        found.sort();
        own.append(found);
        own.append(general);
    } else {
        own.append(general);
        if own.is_empty() {
            // Of all that is unknown, only this is no fault by itself.
            let why = "OpenAPIV3Schema 'schema' is not supported";
            own.push(Cause::invalid(path, &"".into(), why));
        }
    }
    let mut rules = Faults::default();
    SchemaRules::compile(schema, path, &mut rules);
    // Where a schema is wrong, or one in it, its rules are not compiled.
    rules.retain(|fault| {
        let place = fault.field.split(".x-kubernetes-validations").next().unwrap_or_default();
        !of_schemas.iter().any(|other| {
            other.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    });
    own.append(rules);
    faults.append(own);
}

fn validate_beside_status(schema: &Value, path: &str, faults: &mut Faults) {
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return faults.push(Cause::invalid(format!("{path}.type"), &schema["type"], why));
    }
    let mut said = schema.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    if let Some(key) = said.find(|key| !BESIDE_STATUS.contains(key)) {
        let why = format!("{key} may not be at the root if the status subresource is enabled");
        faults.push(Cause::invalid(path, schema, &why));
    }
}

/// Whether a schema, or one in it, says what no structural schema can say: it isn't looked at as one then.
fn has_unknown_words(schema: &Value, depth: usize) -> bool {
    let Value::Object(map) = schema else {
        return schema
            .as_array()
            .is_some_and(|list| depth <= DEEPEST && list.iter().any(|s| has_unknown_words(s, depth + 1)));
    };
    let own = map.iter().any(|(key, value)| match key.as_str() {
        "$schema" | "$ref" | "id" => value.as_str().is_some_and(|text| !text.is_empty()),
        "patternProperties" | "definitions" | "dependencies" => {
            value.as_object().is_some_and(|map| !map.is_empty())
        }
        "additionalItems" => !value.is_null(),
        "items" => !items(value).is_empty(),
        _ => false,
    });
    let among =
        |key: &str| ["allOf", "anyOf", "oneOf", "not", "items", "additionalProperties"].contains(&key);
    own || depth <= DEEPEST
        && map.iter().any(|(key, value)| match key.as_str() {
            "properties" => {
                value.as_object().into_iter().flatten().any(|(_, s)| has_unknown_words(s, depth + 1))
            }
            key => among(key) && has_unknown_words(value, depth + 1),
        })
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Item,
    Field,
}

impl Place {
    fn in_words(self) -> &'static str {
        match self {
            Place::Root => "at the root",
            Place::Item => "for specified array items",
            Place::Field => "for specified object fields",
        }
    }
}

struct Walk<'a> {
    faults: &'a mut Faults,
    depth: usize,
}

impl Walk<'_> {
    /// A schema by itself. Those that are nested too deep are refused already.
    fn schema(&mut self, schema: &Value, path: &str, place: Place) {
        if self.depth > DEEPEST {
            return;
        }
        self.depth += 1;
        self.kind(schema, path, place);
        self.extensions(schema, path);
        if place == Place::Root || schema["x-kubernetes-embedded-resource"] == true {
            self.object(&schema["properties"], &format!("{path}.properties"), place);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(property, &format!("{path}.properties[{name}]"), Place::Field);
        }
        if schema["items"].is_object() {
            self.schema(&schema["items"], &format!("{path}.items"), Place::Item);
        }
        let values = &schema["additionalProperties"];
        if !values.is_null() && place == Place::Root {
            let why = "must not be used at the root";
            self.faults.push(Cause::forbidden(format!("{path}.additionalProperties"), why));
        }
        if values.is_object() {
            self.schema(values, &format!("{path}.additionalProperties"), Place::Field);
        }
        self.conditions(schema, path, is_either(&schema["anyOf"]), is_either(&schema["allOf"][0]["anyOf"]));
        self.depth -= 1;
    }

    fn kind(&mut self, schema: &Value, path: &str, place: Place) {
        let is_set = |extension: &str| schema[extension] == true;
        let (kind, path_of_type) = (text(schema, "type"), format!("{path}.type"));
        if kind == "array" && !schema["items"].is_object() {
            self.faults.push(Cause::required(format!("{path}.items"), "must be specified"));
        }
        if is_set("x-kubernetes-embedded-resource") && kind != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            self.faults.push(match kind {
                "" => Cause::required(&path_of_type, why),
                _ => Cause::invalid(&path_of_type, &schema["type"], why),
            });
        } else if kind.is_empty()
            && !is_set("x-kubernetes-int-or-string")
            && !is_set("x-kubernetes-preserve-unknown-fields")
        {
            let why = format!("must not be empty {}", place.in_words());
            self.faults.push(Cause::required(&path_of_type, &why));
        }
        if place == Place::Root && !kind.is_empty() && kind != "object" {
            self.faults.push(Cause::invalid(path_of_type, &schema["type"], "must be object at the root"));
        }
    }

    fn extensions(&mut self, schema: &Value, path: &str) {
        let is_set = |extension: &str| schema[extension] == true;
        for extension in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if is_set("x-kubernetes-int-or-string") && is_set(extension) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                self.faults.push(Cause::invalid(format!("{path}.{extension}"), &true.into(), why));
            }
        }
        if !is_set("x-kubernetes-embedded-resource") {
            return;
        }
        if !schema["additionalProperties"].is_null() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            self.faults.push(Cause::forbidden(format!("{path}.additionalProperties"), why));
        }
        let known = schema["properties"].as_object().is_some_and(|map| !map.is_empty());
        if !known && !is_set("x-kubernetes-preserve-unknown-fields") {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                x-kubernetes-preserve-unknown-fields";
            self.faults.push(Cause::required(format!("{path}.properties"), why));
        }
    }

    /// What every object has. The metadata is the same for all kinds: a schema may say a little about the name.
    fn object(&mut self, properties: &Value, path: &str, place: Place) {
        for (name, kind) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
            let property = &properties[name];
            if !property.is_null() && text(property, "type") != kind {
                let why = format!("must be {kind}");
                let path = format!("{path}[{name}].type");
                self.faults.push(Cause::invalid(path, &property["type"], &why));
            }
        }
        let is_name = |name: &str| matches!(name, "name" | "generateName");
        let says_more = |(key, value): (&String, &Value)| match key.as_str() {
            "type" | "default" => false,
            "properties" => value.as_object().is_some_and(|map| map.keys().any(|name| !is_name(name))),
            _ => *value != false,
        };
        if place == Place::Root
            && properties["metadata"].as_object().is_some_and(|map| map.iter().any(says_more))
        {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.faults.push(Cause::forbidden(format!("{path}[metadata]"), why));
        }
    }

    /// The conditions on a schema, but for those that say that something is a number or a text.
    fn conditions(&mut self, schema: &Value, path: &str, skip_any: bool, skip_first: bool) {
        for list in ["anyOf", "allOf", "oneOf"].into_iter().filter(|list| *list != "anyOf" || !skip_any) {
            for (index, (path, condition)) in paths(&schema[list], &format!("{path}.{list}")).enumerate() {
                self.condition(condition, &path, skip_first && list == "allOf" && index == 0);
            }
        }
        self.condition(&schema["not"], &format!("{path}.not"), false);
        let pattern = text(schema, "pattern");
        if let Some(why) = compile_pattern(pattern).err().filter(|_| !pattern.is_empty()) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.faults.push(Cause::invalid(format!("{path}.pattern"), &schema["pattern"], &why));
        }
    }

    /// A condition may ask more of fields that the schema has, and say nothing new.
    fn condition(&mut self, condition: &Value, path: &str, skip_any: bool) {
        if condition.is_null() || self.depth > DEEPEST {
            return;
        }
        self.depth += 1;
        self.conditions(condition, path, skip_any, false);
        if condition["items"].is_object() {
            self.condition(&condition["items"], &format!("{path}.items"), false);
        }
        for (name, property) in condition["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.properties[{name}]");
            self.condition(property, &path, false);
            if name == "metadata" {
                self.faults.push(Cause::forbidden(path, "must not be specified in a nested context"));
            }
        }
        let says = |key: &str| match &condition[key] {
            Value::Null => false,
            Value::Bool(truth) => *truth || key == "additionalProperties",
            // A default is what it is.
            Value::Array(list) => !list.is_empty() || key == "default",
            // Kinds of lists and maps are pointers upstream: an empty text is one.
            Value::String(text) => !text.is_empty() || key.starts_with("x-kubernetes"),
            _ => true,
        };
        for (key, wanted) in STRUCTURAL.into_iter().filter(|(key, _)| says(key)) {
            let why = format!("must be {wanted} to be structural");
            self.faults.push(Cause::forbidden(format!("{path}.{key}"), &why));
        }
        self.depth -= 1;
    }

    /// Whether the schema at `path` has what the conditions on it, at `from`, are about. Upstream asks that of a whole schema only
    /// (`validateStructuralCompleteness`), not of those in it.
    fn complete(&mut self, schema: &Value, said: &Value, path: &str, from: &str) {
        if self.depth > DEEPEST {
            return;
        }
        self.depth += 1;
        for list in ["allOf", "anyOf", "oneOf"] {
            for (from, condition) in paths(&said[list], &format!("{from}.{list}")) {
                self.covered(schema, condition, path, &from);
            }
        }
        self.covered(schema, &said["not"], path, &format!("{from}.not"));
        self.depth -= 1;
    }

    /// Upstream names the field that is missing in the schema, not the one in the condition.
    fn covered(&mut self, schema: &Value, condition: &Value, path: &str, from: &str) {
        if condition.is_null() || self.depth > DEEPEST {
            return;
        }
        if schema.is_null() {
            return self.faults.push(Cause::required(path, &format!("because it is defined in {from}")));
        }
        self.complete(schema, condition, path, from);
        self.depth += 1;
        if condition["items"].is_object() {
            self.covered(
                &schema["items"],
                &condition["items"],
                &format!("{path}.items"),
                &format!("{from}.items"),
            );
        }
        for (name, property) in condition["properties"].as_object().into_iter().flatten() {
            let part = format!("properties[{name}]");
            let known = &schema["properties"][name.as_str()];
            self.covered(known, property, &format!("{path}.{part}"), &format!("{from}.{part}"));
        }
        self.depth -= 1;
    }
}

/// Whether conditions say that a value is a number or a text, which `x-kubernetes-int-or-string` may say this way.
fn is_either(conditions: &Value) -> bool {
    *conditions == json!([{ "type": "integer" }, { "type": "string" }])
}
