//! Protobuf to JSON.

use ::values::{Budget, Exceeded};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::encode::SCHEMA;
use super::table::{Count, Field, Kind, Message, Presence, message};
use super::values;
use super::wire::{Fields, Raw};

/// Messages within messages, at most: the deepest that JSON is read here, too.
const DEEPEST: usize = 120;

/// Why bytes are no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// They don't start as Kubernetes' protobuf does.
    #[error("the body does not start with the bytes \"k8s\\0\" of application/vnd.kubernetes.protobuf")]
    Prefix,
    /// They end too early, or a length or a type is none.
    #[error("the body is cut off or broken: it is no protobuf message")]
    Broken,
    /// The kind has no message.
    #[error("no kind {kind:?} in version {api_version:?} can be read as protobuf: send JSON")]
    NoMessage {
        /// The version that the envelope names.
        api_version: String,
        /// The kind that it names.
        kind: String,
    },
    /// A field's value is of another type than the field's.
    #[error("the field {0:?} has a value of the wrong type")]
    WrongType(&'static str),
    /// A value can't be said in JSON.
    #[error("the body holds {0}")]
    Value(&'static str),
    /// It would take more memory than a body may.
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
    /// Messages lie too deep in each other.
    #[error("the body has messages nested more than {DEEPEST} deep")]
    TooDeep,
}

/// Reads a message's fields into `object`.
pub(super) fn get_message(
    bytes: &[u8],
    of: &Message,
    object: &mut Map<String, Value>,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), ProtobufError> {
    if depth > DEEPEST {
        return Err(ProtobufError::TooDeep);
    }
    budget.map()?;
    let mut fields = Fields(bytes);
    while let Some((number, raw)) = fields.next()? {
        let Some(field) = of.numbered(number) else { continue };
        if let (Kind::Inline, Some(inner), Raw::Bytes(bytes)) = (field.kind, field.message, raw) {
            get_message(bytes, inner, object, depth + 1, budget)?;
            continue;
        }
        match field.count {
            Count::One => {
                let value = get_value(raw, field, depth, budget)?;
                if value.is_null() || field.presence == Presence::NotZero && is_zero(&value) {
                    continue;
                }
                budget.field(field.name)?;
                object.insert(field.name.to_owned(), value);
            }
            Count::Repeated => {
                let value = get_value(raw, field, depth, budget)?;
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            Count::Map => {
                let (key, value) = get_entry(raw, field, depth, budget)?;
                budget.field(&key)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn get_entry(
    raw: Raw<'_>,
    field: &Field,
    depth: usize,
    budget: &mut Budget,
) -> Result<(String, Value), ProtobufError> {
    let Raw::Bytes(bytes) = raw else { return Err(ProtobufError::WrongType(field.name)) };
    let mut fields = Fields(bytes);
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, raw)) = fields.next()? {
        match (number, raw) {
            (1, Raw::Bytes(bytes)) => key = text(bytes)?,
            (2, raw) => value = Some(get_value(raw, field, depth, budget)?),
            _ => {}
        }
    }
    let empty = || match field.kind {
        Kind::Text | Kind::Bytes => Value::String(String::new()),
        Kind::Message => Value::Object(Map::new()),
        Kind::Quantity => Value::String("0".into()),
        _ => Value::Null,
    };
    Ok((key, value.filter(|value| !value.is_null()).unwrap_or_else(empty)))
}

fn get_value(raw: Raw<'_>, field: &Field, depth: usize, budget: &mut Budget) -> Result<Value, ProtobufError> {
    let value = match (field.kind, raw) {
        (Kind::Text, Raw::Bytes(bytes)) => Value::String(text(bytes)?),
        (Kind::Bytes, Raw::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Kind::Bool, Raw::Varint(value)) => Value::Bool(value != 0),
        (Kind::Int32, Raw::Varint(value)) => Value::from(value as i32),
        (Kind::Int64, Raw::Varint(value)) => Value::from(value as i64),
        (Kind::Double, Raw::Fixed64(bits)) => whole(f64::from_bits(bits))?,
        (Kind::Message, Raw::Bytes(bytes)) => {
            let mut inner = Map::new();
            if let Some(of) = field.message {
                get_message(bytes, of, &mut inner, depth + 1, budget)?;
            }
            Value::Object(inner)
        }
        (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrTexts, Raw::Bytes(bytes)) => {
            get_choice(field.kind, bytes, depth + 1, budget)?
        }
        (
            Kind::Time | Kind::MicroTime | Kind::Quantity | Kind::IntOrString | Kind::Raw | Kind::Texts,
            Raw::Bytes(bytes),
        ) => values::get(field.kind, bytes)?,
        _ => return Err(ProtobufError::WrongType(field.name)),
    };
    match field.kind {
        // What messages hold is counted as it is read.
        Kind::Message | Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrTexts => budget.scalar(0)?,
        _ => budget.value(&value)?,
    }
    Ok(value)
}

/// A number that JSON writes without a point where it has no fraction.
fn whole(number: f64) -> Result<Value, ProtobufError> {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Ok(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number).ok_or(ProtobufError::Value("a number that is none"))
}

/// A schema, or what may stand instead of one.
fn get_choice(kind: Kind, bytes: &[u8], depth: usize, budget: &mut Budget) -> Result<Value, ProtobufError> {
    let schema = |bytes: &[u8], budget: &mut Budget| {
        let mut object = Map::new();
        if let Some(of) = message(SCHEMA) {
            get_message(bytes, of, &mut object, depth + 1, budget)?;
        }
        Ok::<_, ProtobufError>(Value::Object(object))
    };
    let mut fields = Fields(bytes);
    let (mut allows, mut one, mut list) = (false, None, Vec::new());
    while let Some((number, raw)) = fields.next()? {
        match (kind, number, raw) {
            (Kind::SchemaOrBool, 1, Raw::Varint(value)) => allows = value != 0,
            (Kind::SchemaOrBool, 2, Raw::Bytes(bytes)) => one = Some(schema(bytes, budget)?),
            (_, 1, Raw::Bytes(bytes)) => one = Some(schema(bytes, budget)?),
            (Kind::SchemaOrArray, 2, Raw::Bytes(bytes)) => list.push(schema(bytes, budget)?),
            (Kind::SchemaOrTexts, 2, Raw::Bytes(bytes)) => list.push(Value::String(text(bytes)?)),
            _ => {}
        }
    }
    Ok(match (kind, one) {
        (_, Some(schema)) => schema,
        (Kind::SchemaOrBool, None) => Value::Bool(allows),
        (_, None) => Value::Array(list),
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(true) => false,
    }
}

/// Bytes as text.
pub(super) fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Value("text that is no UTF-8"))
}
