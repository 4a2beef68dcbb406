//! Values that JSON writes otherwise than their message: times, quantities, numbers or strings.

use machinery::time::Moment;
use serde_json::Value;

use super::decode::{ProtobufError, text};
use super::table::Kind;
use super::wire::{Fields, Raw, VARINT, put_bytes, put_key, put_varint};

/// Writes the inside of such a message.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, value: &Value) {
    match (kind, value) {
        (Kind::Time | Kind::MicroTime, Value::String(time)) => {
            let Some((seconds, nanoseconds)) = Moment::parse(time).map(Moment::unix) else { return };
            put_key(out, 1, VARINT);
            put_varint(out, seconds as u64);
            put_key(out, 2, VARINT);
            put_varint(out, nanoseconds as u64);
        }
        (Kind::Quantity, Value::String(quantity)) => put_bytes(out, 1, quantity.as_bytes()),
        (Kind::Quantity, Value::Number(number)) => put_bytes(out, 1, number.to_string().as_bytes()),
        (Kind::IntOrString, Value::Number(number)) => {
            put_key(out, 1, VARINT);
            put_varint(out, 0);
            put_key(out, 2, VARINT);
            put_varint(out, number.as_i64().unwrap_or_default() as u64);
        }
        (Kind::IntOrString, Value::String(text)) => {
            put_key(out, 1, VARINT);
            put_varint(out, 1);
            put_bytes(out, 3, text.as_bytes());
        }
        (Kind::Raw, value) => put_bytes(out, 1, value.to_string().as_bytes()),
        (Kind::Texts, Value::Array(list)) => {
            for item in list.iter().filter_map(Value::as_str) {
                put_bytes(out, 1, item.as_bytes());
            }
        }
        // Objects were held against their schema, so that nothing else is here.
        _ => {}
    }
}

/// Reads the inside of such a message; `null` where it is zero.
pub(super) fn get(kind: Kind, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut fields = Fields(bytes);
    let (mut seconds, mut nanos, mut is_text, mut number, mut found) = (0i64, 0i32, false, 0i32, None);
    let mut texts = Vec::new();
    while let Some((field, raw)) = fields.next()? {
        match (kind, field, raw) {
            (Kind::Time | Kind::MicroTime, 1, Raw::Varint(value)) => seconds = value as i64,
            (Kind::Time | Kind::MicroTime, 2, Raw::Varint(value)) => nanos = value as i32,
            (Kind::IntOrString, 1, Raw::Varint(value)) => is_text = value == 1,
            (Kind::IntOrString, 2, Raw::Varint(value)) => number = value as i32,
            (Kind::Quantity, 1, Raw::Bytes(value)) | (Kind::IntOrString, 3, Raw::Bytes(value)) => {
                found = Some(text(value)?);
            }
            (Kind::Raw, 1, Raw::Bytes(value)) => return raw_json(value),
            (Kind::Texts, 1, Raw::Bytes(value)) => texts.push(Value::String(text(value)?)),
            _ => {}
        }
    }
    Ok(match kind {
        // No time at all is an empty message (`Time.ProtoTime`).
        Kind::Time | Kind::MicroTime if bytes.is_empty() => Value::Null,
        Kind::Time | Kind::MicroTime => {
            let time = Moment::from_unix(seconds, nanos.clamp(0, 999_999_999))
                .ok_or(ProtobufError::Value("a time outside of what RFC 3339 can say"))?;
            Value::String(if kind == Kind::Time { time.to_seconds() } else { time.to_micros() })
        }
        Kind::IntOrString if is_text => Value::String(found.unwrap_or_default()),
        Kind::IntOrString => Value::from(number),
        Kind::Texts => Value::Array(texts),
        _ => found.filter(|text| !text.is_empty()).map_or(Value::Null, Value::String),
    })
}

fn raw_json(bytes: &[u8]) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| ProtobufError::Value("raw bytes that are no JSON"))
}
