//! Definitions of custom resources, and objects of theirs: schema, pruning, defaults, validation, rules, patches.

use std::sync::Arc;

use machinery::{Definition, Object, PatchType};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::mutate;

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "default": {},
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "x-kubernetes-validations": [
                {"rule": "self >= oldSelf", "messageExpression": "'%d'.format([self])", "reason": "FieldValueForbidden"}]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 20, "nullable": true, "enum": ["a", "b", null]},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "string", "format": "date-time"}},
            "list": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 9},
                    "v": {"type": "number", "default": 0.5, "multipleOf": 0.5}}},
                "x-kubernetes-validations": [{"rule": "self.all(x, x.k != '')", "fieldPath": ""}]},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}, "minItems": 1}},
        "oneOf": [{"required": ["size"]}, {"required": ["name"]}], "not": {"required": ["size", "name"]}}}})
}

fn object() -> Value {
    json!({"kind": "Widget", "apiVersion": "fuzz.example.com/v1", "metadata": {"name": "w"}, "spec": {"size": 5,
        "port": "http", "any": {"x": [1, {"y": null}]}, "pod": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}},
        "map": {"a": "2026-01-01T00:00:00Z"}, "list": [{"k": "a"}, {"k": "b", "v": 1.5}], "set": [1, 2], "unknown": 1}})
}

/// A schema, an object, and what it is patched with.
pub(crate) fn make(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let other = |rng: &mut StdRng| match rng.random_range(0..3) {
        0 => corpus.values[rng.random_range(0..corpus.values.len())].clone(),
        1 => object(),
        _ => schema(),
    };
    let changed = |rng: &mut StdRng, value: Value| {
        if rng.random_range(0..4) == 0 {
            return value;
        }
        let other = other(rng);
        mutate::tree(rng, value, &other)
    };
    let (schema, object, patch) = (changed(rng, schema()), changed(rng, object()), changed(rng, object()));
    json!([schema, object, patch]).to_string().into_bytes()
}

/// What grows may be in the schema, in the object, in both, or in the patch.
pub(crate) fn grow(rng: &mut StdRng, corpus: &Corpus) -> crate::grow::Growing {
    let whole = if rng.random_range(0..2) == 0 {
        json!([schema(), object(), object()])
    } else {
        serde_json::from_slice(&make(rng, corpus)).unwrap_or_default()
    };
    let tree = crate::grow::tree(rng, whole);
    Box::new(move |times| tree(times).to_string().into_bytes())
}

fn definition(schema: &Value) -> Value {
    json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "widgets.fuzz.example.com"}, "spec": {"group": "fuzz.example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "conversion": {"strategy": "None"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}]},
        "status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}})
}

/// A definition is refused, or served; and then its objects are.
pub(crate) fn read(input: &[u8]) {
    let Ok(Value::Array(parts)) = serde_json::from_slice(input) else { return };
    let [schema, object, patch] = parts.as_slice() else { return };
    let Some(kind) = api::resource("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        unreachable!("definitions are served")
    };
    let Some(mut defined) = Object::from_value(definition(schema)) else { return };
    if machinery::check(kind, &mut defined).is_err() {
        return;
    }
    if machinery::set_defaults(kind, &mut defined).is_err() {
        return;
    }
    let faults = machinery::validate_create(kind, &defined);
    for fault in &faults {
        assert!(!fault.reason.is_empty() && !fault.message.is_empty(), "{fault:?}");
    }
    if !faults.is_empty() {
        return;
    }
    let source = defined.into_value().to_string();
    let parsed = Definition::parse(source.into(), 1, None);
    let parsed = Arc::new(parsed.unwrap_or_else(|error| panic!("what is valid can't be read: {error}")));
    for resource in parsed.resources() {
        let Some(mut object) = Object::from_value(object.clone()) else { return };
        if machinery::check(&resource, &mut object).is_err() {
            continue;
        }
        let pruned = object.clone();
        let left = machinery::check(&resource, &mut object)
            .unwrap_or_else(|_| panic!("pruned, it doesn't fit any more"));
        assert_eq!((&object, left), (&pruned, Vec::<String>::new()), "pruned again it loses more");
        if machinery::set_defaults(&resource, &mut object).is_err() {
            continue;
        }
        let defaulted = object.clone();
        assert!(machinery::set_defaults(&resource, &mut object).is_ok(), "they fit before");
        assert_eq!(object, defaulted, "defaults set again change nothing");
        machinery::prepare_create(&resource, &mut object);
        for fault in machinery::validate_create(&resource, &object) {
            assert!(!fault.reason.is_empty() && !fault.message.is_empty(), "{fault:?}");
        }
        for how in [PatchType::Json, PatchType::Merge] {
            let Ok(mut patched) = machinery::patch(&resource, how, &object, patch) else { continue };
            if machinery::check(&resource, &mut patched).is_ok() {
                machinery::prepare_update(&resource, "", &mut patched, &object);
                machinery::validate_update(&resource, "", &patched, &object);
            }
        }
        machinery::table(&resource, std::slice::from_ref(&object), &json!({}), machinery::Include::Object, 0);
    }
}
