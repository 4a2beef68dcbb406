//! OpenAPI documents as protobuf: gnostic's messages `openapi.v2.Document` and `openapi.v3.Document`, where maps are
//! lists of pairs and whatever has no message of its own is text in YAML (JSON is YAML).

mod v2;
mod v3;

use serde_json::{Map, Value};

use crate::protobuf::{VARINT, put_bytes, put_key, put_nested, put_varint};

pub(super) use v2::swagger;
pub(super) use v3::document;

type Object = Map<String, Value>;

/// Writes the fields of one object.
struct Message<'a> {
    out: &'a mut Vec<u8>,
    object: &'a Object,
}

impl<'a> Message<'a> {
    fn text(&mut self, number: u32, key: &str) {
        if let Some(text) = self.object.get(key).and_then(Value::as_str) {
            put_bytes(self.out, number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, key: &str) {
        if self.object.get(key) == Some(&Value::Bool(true)) {
            put_key(self.out, number, VARINT);
            put_varint(self.out, 1);
        }
    }

    fn texts(&mut self, number: u32, key: &str) {
        for text in self.list(key).iter().filter_map(Value::as_str) {
            put_bytes(self.out, number, text.as_bytes());
        }
    }

    fn integers(&mut self, fields: &[(u32, &str)]) {
        for (number, key) in fields {
            if let Some(value) = self.object.get(*key).and_then(Value::as_i64) {
                put_key(self.out, *number, VARINT);
                put_varint(self.out, value as u64);
            }
        }
    }

    fn doubles(&mut self, fields: &[(u32, &str)]) {
        for (number, key) in fields {
            if let Some(value) = self.object.get(*key).and_then(Value::as_f64) {
                put_key(self.out, *number, crate::protobuf::FIXED64);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn list(&self, key: &str) -> &'a [Value] {
        self.object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn object(&self, key: &str) -> Option<&'a Object> {
        self.object.get(key).and_then(Value::as_object)
    }

    /// One message.
    fn one(&mut self, number: u32, key: &str, write: impl FnOnce(&mut Vec<u8>, &Object)) {
        if let Some(object) = self.object(key) {
            put_nested(self.out, number, |out| write(out, object));
        }
    }

    /// Several messages.
    fn many(&mut self, number: u32, key: &str, write: impl Fn(&mut Vec<u8>, &Object)) {
        for object in self.list(key).iter().filter_map(Value::as_object) {
            put_nested(self.out, number, |out| write(out, object));
        }
    }

    /// Values that can be anything.
    fn anythings(&mut self, number: u32, key: &str) {
        for value in self.list(key) {
            put_nested(self.out, number, |out| anything(out, value));
        }
    }

    /// What begins with `x-`, as pairs.
    fn extensions(&mut self, number: u32) {
        for (name, value) in self.object.iter().filter(|(name, _)| name.starts_with("x-")) {
            put_nested(self.out, number, |out| {
                put_bytes(out, 1, name.as_bytes());
                put_nested(out, 2, |out| anything(out, value));
            });
        }
    }
}

/// `Any`: its text.
fn anything(out: &mut Vec<u8>, value: &Value) {
    put_bytes(out, 2, value.to_string().as_bytes());
}

/// A pair of a name and a message.
fn pair(out: &mut Vec<u8>, number: u32, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    put_nested(out, number, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_nested(out, 2, write);
    });
}

/// A map as a list of pairs.
fn pairs(out: &mut Vec<u8>, number: u32, map: &Object, write: impl Fn(&mut Vec<u8>, &Object)) {
    for (name, value) in map {
        if let Value::Object(object) = value {
            pair(out, number, name, |out| write(out, object));
        }
    }
}
