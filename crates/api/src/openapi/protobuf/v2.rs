//! `openapi.v2.Document`.

use serde_json::Value;

use super::{Message, Object, pair, pairs};
use crate::openapi::swagger::{Swagger, info, security};
use crate::protobuf::{VARINT, put_bytes, put_key, put_nested, put_varint};

/// The OpenAPI v2 document of v3 documents.
pub(in crate::openapi) fn swagger(documents: impl Iterator<Item = Value>) -> Vec<u8> {
    let item = |object: &Object| {
        let mut out = Vec::new();
        path_item(&mut out, object);
        out
    };
    let definition = |object: &Object| {
        let mut out = Vec::new();
        schema(&mut out, object);
        out
    };
    let swagger = Swagger::of(documents, item, definition);
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"2.0");
    if let Value::Object(info) = info() {
        put_nested(&mut out, 2, |out| {
            let mut message = Message { out, object: &info };
            message.text(1, "title");
            message.text(2, "version");
        });
    }
    put_nested(&mut out, 8, |out| {
        for (path, item) in swagger.paths {
            pair(out, 2, &path, |out| out.extend_from_slice(&item));
        }
    });
    put_nested(&mut out, 9, |out| {
        for (name, definition) in swagger.definitions {
            pair(out, 1, &name, |out| out.extend_from_slice(&definition));
        }
    });
    put_nested(&mut out, 12, |out| pair(out, 1, "BearerToken", |_| {}));
    if let Value::Object(security) = security() {
        put_nested(&mut out, 13, |out| {
            pair(out, 1, "BearerToken", |out| {
                put_nested(out, 2, |out| {
                    let mut message = Message { out, object: &security };
                    for (number, key) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                        message.text(number, key);
                    }
                });
            })
        });
    }
    out
}

fn path_item(out: &mut Vec<u8>, item: &Object) {
    let mut message = Message { out, object: item };
    let methods =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in methods {
        message.one(number, method, operation);
    }
    message.many(9, "parameters", parameters_item);
    message.extensions(10);
}

fn operation(out: &mut Vec<u8>, operation: &Object) {
    let mut message = Message { out, object: operation };
    message.texts(1, "tags");
    message.text(2, "summary");
    message.text(3, "description");
    message.text(5, "operationId");
    message.texts(6, "produces");
    message.texts(7, "consumes");
    message.many(8, "parameters", parameters_item);
    message.one(9, "responses", |out, responses| {
        pairs(out, 1, responses, |out, answer| put_nested(out, 1, |out| response(out, answer)));
    });
    message.texts(10, "schemes");
    message.flag(11, "deprecated");
    message.extensions(13);
}

/// `ParametersItem`, of which a parameter is one case, of which one in the body is one case.
fn parameters_item(out: &mut Vec<u8>, parameter: &Object) {
    let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
    put_nested(out, 1, |out| match place {
        "body" => put_nested(out, 1, |out| body_parameter(out, parameter)),
        _ => put_nested(out, 2, |out| match place {
            "header" => put_nested(out, 1, |out| simple_parameter(out, parameter, false)),
            "path" => put_nested(out, 4, |out| simple_parameter(out, parameter, false)),
            _ => put_nested(out, 3, |out| simple_parameter(out, parameter, true)),
        }),
    });
}

fn body_parameter(out: &mut Vec<u8>, parameter: &Object) {
    let mut message = Message { out, object: parameter };
    message.text(1, "description");
    message.text(2, "name");
    message.text(3, "in");
    message.flag(4, "required");
    message.one(5, "schema", schema);
}

/// Parameters in paths, headers and queries; those of queries have one field more in the middle.
fn simple_parameter(out: &mut Vec<u8>, parameter: &Object, in_query: bool) {
    let more = u32::from(in_query);
    let mut message = Message { out, object: parameter };
    message.flag(1, "required");
    message.text(2, "in");
    message.text(3, "description");
    message.text(4, "name");
    message.text(5 + more, "type");
    message.text(6 + more, "format");
    message.flag(19 + more, "uniqueItems");
}

fn response(out: &mut Vec<u8>, response: &Object) {
    let mut message = Message { out, object: response };
    message.text(1, "description");
    message.one(2, "schema", |out, of_answer| put_nested(out, 1, |out| schema(out, of_answer)));
}

fn schema(out: &mut Vec<u8>, of: &Object) {
    let mut message = Message { out, object: of };
    message.text(1, "$ref");
    message.text(2, "format");
    message.text(3, "title");
    message.text(4, "description");
    message.doubles(&[(6, "multipleOf"), (7, "maximum"), (9, "minimum")]);
    message.flag(8, "exclusiveMaximum");
    message.flag(10, "exclusiveMinimum");
    message.text(13, "pattern");
    message.flag(16, "uniqueItems");
    message.integers(&[
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ]);
    message.texts(19, "required");
    message.anythings(20, "enum");
    match of.get("additionalProperties") {
        Some(Value::Object(additional)) => {
            put_nested(message.out, 21, |out| put_nested(out, 1, |out| schema(out, additional)));
        }
        Some(Value::Bool(additional)) => put_nested(message.out, 21, |out| {
            put_key(out, 2, VARINT);
            put_varint(out, u64::from(*additional));
        }),
        _ => {}
    }
    if let Some(kind) = of.get("type").and_then(Value::as_str) {
        put_nested(message.out, 22, |out| put_bytes(out, 1, kind.as_bytes()));
    }
    message.one(23, "items", |out, items| put_nested(out, 1, |out| schema(out, items)));
    message.many(24, "allOf", schema);
    message.one(25, "properties", |out, properties| pairs(out, 1, properties, schema));
    message.extensions(31);
}
