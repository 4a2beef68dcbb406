//! Defaults of structural schemas, and what becomes of `null`.
//!
//! Follows `pkg/apiserver/schema/defaulting` of apiextensions-apiserver: a `null` where none may be is nothing, and
//! gets the default.

use serde_json::{Map, Value};
use values::{Budget, Exceeded};

use super::schema::{Known, Schema, Values};

/// What the defaults of one object may take in memory, in bytes: a quarter of what a whole body may. A schema can have ten
/// thousand for an element of which a body holds a hundred thousand.
pub(super) const MOST_ADDED: usize = values::MOST_MEMORY / 4;

/// Fills an object's defaults in.
///
/// # Errors
/// If they would take more memory than they may; then those that fit are there.
pub(super) fn fill(schema: &Schema, object: &mut Map<String, Value>) -> Result<(), Exceeded> {
    fill_object(schema, object, &mut Budget::new(MOST_ADDED))
}

/// Takes out each `null` that may not be one and has no default: such a null in what is read says nothing. What an
/// applier says is judged with it.
pub(super) fn drop_nulls(schema: &Schema, object: &mut Map<String, Value>) {
    object.retain(|name, value| {
        let Some(Known::Schema(known)) = schema.field(name) else { return true };
        drop_within(known, value);
        !value.is_null() || known.nullable || known.default.is_some()
    });
}

fn drop_within(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => drop_nulls(schema, object),
        Value::Array(list) => {
            let items = schema.items.as_deref();
            items.into_iter().for_each(|items| list.iter_mut().for_each(|item| drop_within(items, item)));
        }
        _ => {}
    }
}

/// Fills the defaults within a default in.
pub(super) fn fill_default(schema: &Schema, value: &mut Value) -> Result<(), Exceeded> {
    fill_value(schema, value, &mut Budget::new(MOST_ADDED))
}

fn fill_object(
    schema: &Schema,
    object: &mut Map<String, Value>,
    budget: &mut Budget,
) -> Result<(), Exceeded> {
    for (name, property) in &schema.properties {
        let Some(default) = &property.default else { continue };
        if object.get(&**name).is_none_or(|value| value.is_null() && !property.nullable) {
            if object.is_empty() {
                budget.map()?;
            }
            budget.field(name)?;
            budget.value(default)?;
            object.insert(name.to_string(), default.clone());
        }
    }
    let values = match &schema.values {
        Some(Values::Of(values)) => Some(&**values),
        _ => None,
    };
    let mut filled = Ok(());
    object.retain(|name, value| {
        let property = schema.properties.get(name.as_str());
        let Some(known) = property.or(values).filter(|_| filled.is_ok()) else { return true };
        if value.is_null() && !known.nullable {
            match &known.default {
                Some(default) => {
                    filled = budget.value(default);
                    if filled.is_err() {
                        return true;
                    }
                    *value = default.clone();
                }
                None => return true,
            }
        }
        filled = fill_value(known, value, budget);
        true
    });
    filled
}

fn fill_value(schema: &Schema, value: &mut Value, budget: &mut Budget) -> Result<(), Exceeded> {
    match value {
        Value::Object(object) => fill_object(schema, object, budget),
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    budget.value(default)?;
                    *item = default.clone();
                }
                fill_value(items, item, budget)?;
            }
            Ok(())
        }
        _ => Ok(()),
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
            drop_nulls(&schema, object.as_object_mut().unwrap());
            fill(&schema, object.as_object_mut().unwrap()).unwrap();
            assert_eq!(object, expected, "{given}");
        }
    }

    #[test]
    fn what_defaults_add_is_bounded() {
        let wide: Map<String, Value> =
            (0..1000).map(|n| (format!("p{n}"), json!({"type": "string", "default": "x"}))).collect();
        let schema = |items: Value| {
            Schema::of_resource(
                &json!({"type": "object", "properties": {"list": {"type": "array", "items": items}}}),
            )
        };
        let fields = |schema: &Schema, count: usize, each: Value| {
            let mut object = json!({ "list": vec![each; count] });
            let filled = fill(schema, object.as_object_mut().unwrap());
            let list = object["list"].as_array().unwrap().iter();
            (filled, list.filter_map(Value::as_object).map(Map::len).sum::<usize>())
        };
        let of_wide = schema(json!({"type": "object", "properties": wide.clone()}));
        assert_eq!(fields(&of_wide, 100, json!({})), (Ok(()), 100_000));
        let (filled, count) = fields(&of_wide, 5000, json!({}));
        assert_eq!(filled, Err(Exceeded));
        assert!((100_000..200_000).contains(&count), "{count}");
        // Long defaults, and those of items that are nothing, count alike.
        let long = schema(
            json!({"type": "object", "properties": {"t": {"type": "string", "default": "x".repeat(1 << 20)}}}),
        );
        assert_eq!(fields(&long, 1000, json!({})), (Err(Exceeded), 15));
        let item = schema(json!({"type": "object", "default": {"t": "x".repeat(1 << 20)}}));
        assert_eq!(fields(&item, 1000, Value::Null), (Err(Exceeded), 15));
        // Defaults within defaults come on top.
        let nested = schema(
            json!({"type": "object", "properties": {"o": {"type": "object", "default": {}, "properties": wide}}}),
        );
        assert_eq!(fields(&nested, 5000, json!({})).0, Err(Exceeded));
    }
}
