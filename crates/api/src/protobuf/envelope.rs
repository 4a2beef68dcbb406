//! Whole objects, lists and events of a watch.

use machinery::Object;
use serde_json::{Map, Value};
use values::Budget;

use super::decode::{ProtobufError, get_message, text};
use super::encode::put_message;
use super::table::{Message, message_of};
use super::wire::{Fields, Raw, put_bytes, put_nested};

const PREFIX: &[u8] = b"k8s\0";

/// Whether objects of a kind can be written as protobuf.
pub fn has_protobuf(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

/// An object as protobuf; nothing if its kind has no message.
pub fn to_protobuf(object: &Map<String, Value>) -> Option<Vec<u8>> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let of = message_of(api_version, kind)?;
    let mut out = start(api_version, kind);
    put_nested(&mut out, 2, |out| put_message(out, of, object));
    finish(&mut out);
    Some(out)
}

/// The prefix, and which kind follows.
fn start(api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    put_nested(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
    });
    out
}

/// As upstream: neither encoded nor of a type of its own.
fn finish(out: &mut Vec<u8>) {
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
}

/// A list that is written item by item.
#[derive(Debug)]
pub struct ProtobufList {
    head: Vec<u8>,
    body: Vec<u8>,
    item: &'static Message,
}

impl ProtobufList {
    /// A list of objects of a kind, with the list's metadata; nothing if the kind has no message.
    pub fn new(api_version: &str, kind: &str, metadata: &Value) -> Option<Self> {
        let list_kind = format!("{kind}List");
        let (item, list) = (message_of(api_version, kind)?, message_of(api_version, &list_kind)?);
        let mut body = Vec::new();
        let object = Map::from_iter([("metadata".to_owned(), metadata.clone())]);
        put_message(&mut body, list, &object);
        Some(ProtobufList { head: start(api_version, &list_kind), body, item })
    }

    /// Adds an item.
    pub fn push(&mut self, object: &Object) {
        // Every list has its items there.
        put_nested(&mut self.body, 2, |out| put_message(out, self.item, &object.0));
    }

    /// The bytes of the list.
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        out.reserve(self.body.len() + 16);
        put_bytes(&mut out, 2, &self.body);
        finish(&mut out);
        out
    }
}

/// An event of a watch with the object's bytes, as a frame that begins with its length.
pub fn protobuf_watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(&mut out, 1, kind.as_bytes());
    put_nested(&mut out, 2, |out| put_bytes(out, 1, object));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The object in `body`, with its kind and apiVersion where the envelope says them.
///
/// # Errors
/// If the bytes are no such message, or the kind has none.
pub fn from_protobuf(body: &[u8], default_kind: (&str, &str)) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(PREFIX).ok_or(ProtobufError::Prefix)?;
    let (mut api_version, mut kind, mut raw_object) = (String::new(), String::new(), &b""[..]);
    let mut fields = Fields(body);
    while let Some((number, raw)) = fields.next()? {
        match (number, raw) {
            (1, Raw::Bytes(bytes)) => {
                let mut inner = Fields(bytes);
                while let Some((number, raw)) = inner.next()? {
                    match (number, raw) {
                        (1, Raw::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Raw::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(bytes)) => raw_object = bytes,
            _ => {}
        }
    }
    for (found, default) in [(&mut api_version, default_kind.0), (&mut kind, default_kind.1)] {
        if found.is_empty() {
            *found = default.to_owned();
        }
    }
    let Some(of) = message_of(&api_version, &kind) else {
        return Err(ProtobufError::NoMessage { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    get_message(raw_object, of, &mut object, 0, &mut Budget::default())?;
    Ok(Value::Object(object))
}
