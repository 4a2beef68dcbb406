//! `openapi.v3.Document`.

use serde_json::Value;

use super::{Message, Object, pairs};
use crate::protobuf::{VARINT, put_bytes, put_key, put_nested, put_varint};

/// An OpenAPI v3 document.
pub(in crate::openapi) fn document(document: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    let mut message = Message { out: &mut out, object: document };
    message.text(1, "openapi");
    message.one(2, "info", |out, info| {
        let mut message = Message { out, object: info };
        message.text(1, "title");
        message.text(6, "version");
    });
    message.one(4, "paths", |out, paths| pairs(out, 1, paths, path_item));
    message.one(5, "components", |out, components| {
        let mut message = Message { out, object: components };
        message.one(1, "schemas", |out, schemas| pairs(out, 1, schemas, schema_or_reference));
        message.one(7, "securitySchemes", |out, schemes| {
            pairs(out, 1, schemes, |out, scheme| {
                put_nested(out, 1, |out| {
                    let mut message = Message { out, object: scheme };
                    for (number, key) in [(1, "type"), (2, "description"), (3, "name"), (4, "in")] {
                        message.text(number, key);
                    }
                });
            });
        });
    });
    out
}

fn path_item(out: &mut Vec<u8>, item: &Object) {
    let mut message = Message { out, object: item };
    let methods =
        [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (8, "options"), (9, "head"), (10, "patch")];
    for (number, method) in methods {
        message.one(number, method, operation);
    }
    message.many(13, "parameters", parameter);
    message.extensions(14);
}

fn operation(out: &mut Vec<u8>, operation: &Object) {
    let mut message = Message { out, object: operation };
    message.texts(1, "tags");
    message.text(2, "summary");
    message.text(3, "description");
    message.text(5, "operationId");
    message.many(6, "parameters", parameter);
    message.one(7, "requestBody", |out, body| {
        put_nested(out, 1, |out| {
            let mut message = Message { out, object: body };
            message.text(1, "description");
            message.one(2, "content", media_types);
            message.flag(3, "required");
        });
    });
    message.one(8, "responses", |out, responses| {
        pairs(out, 2, responses, |out, response| {
            put_nested(out, 1, |out| {
                let mut message = Message { out, object: response };
                message.text(1, "description");
                message.one(3, "content", media_types);
            });
        });
    });
    message.flag(10, "deprecated");
    message.extensions(13);
}

/// `ParameterOrReference`.
fn parameter(out: &mut Vec<u8>, parameter: &Object) {
    put_nested(out, 1, |out| {
        let mut message = Message { out, object: parameter };
        message.text(1, "name");
        message.text(2, "in");
        message.text(3, "description");
        message.flag(4, "required");
        message.one(10, "schema", schema_or_reference);
    });
}

fn media_types(out: &mut Vec<u8>, types: &Object) {
    pairs(out, 1, types, |out, media_type| {
        Message { out, object: media_type }.one(1, "schema", schema_or_reference);
    });
}

fn schema_or_reference(out: &mut Vec<u8>, of: &Object) {
    match of.get("$ref").and_then(Value::as_str) {
        Some(reference) => put_nested(out, 2, |out| put_bytes(out, 1, reference.as_bytes())),
        None => put_nested(out, 1, |out| schema(out, of)),
    }
}

fn schema(out: &mut Vec<u8>, of: &Object) {
    let mut message = Message { out, object: of };
    message.flag(1, "nullable");
    message.text(9, "title");
    message.doubles(&[(10, "multipleOf"), (11, "maximum"), (13, "minimum")]);
    message.flag(12, "exclusiveMaximum");
    message.flag(14, "exclusiveMinimum");
    message.text(17, "pattern");
    message.flag(20, "uniqueItems");
    message.integers(&[
        (15, "maxLength"),
        (16, "minLength"),
        (18, "maxItems"),
        (19, "minItems"),
        (21, "maxProperties"),
        (22, "minProperties"),
    ]);
    message.texts(23, "required");
    message.anythings(24, "enum");
    message.text(25, "type");
    message.many(26, "allOf", schema_or_reference);
    message.many(27, "oneOf", schema_or_reference);
    message.many(28, "anyOf", schema_or_reference);
    message.one(29, "not", schema);
    message.one(30, "items", |out, items| put_nested(out, 1, |out| schema_or_reference(out, items)));
    message.one(31, "properties", |out, properties| pairs(out, 1, properties, schema_or_reference));
    match of.get("additionalProperties") {
        Some(Value::Object(additional)) => {
            put_nested(message.out, 32, |out| put_nested(out, 1, |out| schema_or_reference(out, additional)));
        }
        Some(Value::Bool(additional)) => put_nested(message.out, 32, |out| {
            put_key(out, 2, VARINT);
            put_varint(out, u64::from(*additional));
        }),
        _ => {}
    }
    if let Some(default) = of.get("default") {
        put_default(message.out, default);
    }
    message.text(34, "description");
    message.text(35, "format");
    message.extensions(36);
}

/// `DefaultType`, which knows simple values alone: others are left out, as gnostic does.
fn put_default(out: &mut Vec<u8>, default: &Value) {
    match default {
        Value::Number(number) => put_nested(out, 33, |out| {
            put_key(out, 1, crate::protobuf::FIXED64);
            out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
        }),
        Value::Bool(flag) => put_nested(out, 33, |out| {
            put_key(out, 2, VARINT);
            put_varint(out, u64::from(*flag));
        }),
        Value::String(text) => put_nested(out, 33, |out| put_bytes(out, 3, text.as_bytes())),
        _ => {}
    }
}
