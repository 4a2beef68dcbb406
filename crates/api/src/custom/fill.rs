//! Defaults of structural schemas, and what becomes of `null`.
//!
//! Follows `pkg/apiserver/schema/defaulting` of apiextensions-apiserver: a `null` where none may be is nothing, and
//! gets the default.

use serde_json::{Map, Value};

use super::schema::{Schema, Values};

/// Fills an object's defaults in.
pub(super) fn fill(schema: &Schema, object: &mut Map<String, Value>) {
    for (name, property) in &schema.properties {
        let Some(default) = &property.default else { continue };
        if object.get(&**name).is_none_or(|value| value.is_null() && !property.nullable) {
            object.insert(name.to_string(), default.clone());
        }
    }
    let values = match &schema.values {
        Some(Values::Of(values)) => Some(&**values),
        _ => None,
    };
    object.retain(|name, value| {
        let property = schema.properties.get(name.as_str());
        let Some(known) = property.or(values) else { return true };
        if value.is_null() && !known.nullable {
            match &known.default {
                Some(default) => *value = default.clone(),
                None => return false,
            }
        }
        fill_value(known, value);
        true
    });
}

fn fill_value(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => fill(schema, object),
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = default.clone();
                }
                fill_value(items, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_fill_what_is_missing_or_null() {
        let schema = Schema::of_resource(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "color": {"type": "string", "default": "red"},
                "maybe": {"type": "string", "nullable": true, "default": "x"},
                "plain": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer", "default": 2}}}},
            }},
        }}));
        for (given, expected) in [
            (json!({}), json!({"spec": {"color": "red", "maybe": "x"}})),
            (
                json!({"spec": {"color": null, "maybe": null, "plain": null}}),
                json!({"spec": {"color": "red", "maybe": null}}),
            ),
            (
                json!({"spec": {"color": "a", "maybe": "b", "list": [{}, {"n": 5}], "map": {"k": {}, "z": null}}}),
                json!({"spec": {"color": "a", "maybe": "b", "list": [{"n": 1}, {"n": 5}], "map": {"k": {"n": 2}}}}),
            ),
        ] {
            let mut object = given.clone();
            fill(&schema, object.as_object_mut().unwrap());
            assert_eq!(object, expected, "{given}");
        }
    }
}
