//! JSON to protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::table::{Count, Field, Kind, Message, message};
use super::values;
use super::wire::{FIXED64, VARINT, put_bytes, put_key, put_nested, put_varint};

/// Writes an object's fields as `of` has them. What the message doesn't have, or has as another type, is left out.
pub(super) fn put_message(out: &mut Vec<u8>, of: &Message, object: &Map<String, Value>) {
    for field in of.fields() {
        if let (Kind::Inline, Some(inner)) = (field.kind, field.message) {
            put_nested(out, field.number, |out| put_message(out, inner, object));
            continue;
        }
        match (field.count, object.get(field.name)) {
            (_, None | Some(Value::Null)) => {}
            (Count::One, Some(value)) => put_value(out, field, field.number, value),
            (Count::Repeated, Some(Value::Array(list))) => {
                for value in list {
                    put_value(out, field, field.number, value);
                }
            }
            (Count::Map, Some(Value::Object(map))) => {
                for (key, value) in map {
                    put_nested(out, field.number, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        put_value(out, field, 2, value);
                    });
                }
            }
            (Count::Repeated | Count::Map, Some(_)) => {}
        }
    }
}

fn put_value(out: &mut Vec<u8>, field: &Field, number: u32, value: &Value) {
    match (field.kind, value) {
        (Kind::Text, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Kind::Bytes, Value::String(text)) => {
            if let Ok(bytes) = STANDARD.decode(text) {
                put_bytes(out, number, &bytes);
            }
        }
        (Kind::Bool, Value::Bool(set)) => {
            put_key(out, number, VARINT);
            out.push(u8::from(*set));
        }
        (Kind::Int32 | Kind::Int64, Value::Number(value)) => {
            if let Some(value) = value.as_i64() {
                put_key(out, number, VARINT);
                put_varint(out, value as u64);
            }
        }
        (Kind::Double, Value::Number(value)) => {
            put_key(out, number, FIXED64);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Kind::Message, Value::Object(object)) => {
            if let Some(inner) = field.message {
                put_nested(out, number, |out| put_message(out, inner, object));
            }
        }
        (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrTexts, value) => {
            put_nested(out, number, |out| put_choice(out, field.kind, value));
        }
        (
            Kind::Time | Kind::MicroTime | Kind::Quantity | Kind::IntOrString | Kind::Raw | Kind::Texts,
            value,
        ) => put_nested(out, number, |out| values::put(out, field.kind, value)),
        _ => {}
    }
}

/// A schema, or what may stand instead of one.
fn put_choice(out: &mut Vec<u8>, kind: Kind, value: &Value) {
    let Some(schema) = message(SCHEMA) else { return };
    let place = if kind == Kind::SchemaOrBool { 2 } else { 1 };
    match (kind, value) {
        (_, Value::Object(object)) => {
            if kind == Kind::SchemaOrBool {
                put_key(out, 1, VARINT);
                out.push(1);
            }
            put_nested(out, place, |out| put_message(out, schema, object));
        }
        (Kind::SchemaOrBool, Value::Bool(allows)) => {
            put_key(out, 1, VARINT);
            out.push(u8::from(*allows));
        }
        (_, Value::Array(list)) => {
            for item in list {
                match item {
                    Value::String(text) => put_bytes(out, 2, text.as_bytes()),
                    Value::Object(object) => put_nested(out, 2, |out| put_message(out, schema, object)),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// The message of a schema in a custom resource's definition.
pub(super) const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";
