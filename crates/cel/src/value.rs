//! The values of CEL. What comes from an object is borrowed from its JSON and looked at when it is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use semver::Version;
use serde_json::{Map as Json, Value as JsonValue};

use crate::budget::Budget;
use crate::error::Error;
use crate::functions::{Amount, Format, Url};
use crate::time::{self, Moment};
use crate::types::unescaped;

/// How large a result may be as JSON: a unit a value, and for ten bytes of text. As much as an expression could make of its
/// own budget; what it only names costs it nothing.
const LARGEST_RESULT: u64 = 1_000_000;

/// A value of an expression.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is never negative.
    Uint(u64),
    /// A number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Timestamp(Moment),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A type, by name.
    Type(&'static str),
    /// A list.
    List(List<'a>),
    /// A map, or an object with fields.
    Map(Map<'a>),
    /// Something that may be missing.
    Optional(Option<Arc<Value<'a>>>),
    /// An object that the expression made, with its type's name.
    Message(&'a str, Map<'a>),
    /// An amount.
    Quantity(Amount),
    /// An address.
    Ip(IpAddr),
    /// A network; its address may be any of its own.
    Cidr(IpNet),
    /// A URL.
    Url(Arc<Url>),
    /// A version.
    Semver(Arc<Version>),
    /// A named format.
    Format(&'static Format),
    /// Something that the evaluating code answers for.
    External(Arc<dyn External>),
}

/// Something that answers for itself, such as `authorizer`.
pub trait External: Send + Sync {
    /// Its type's name.
    fn type_name(&self) -> &'static str;

    /// What it answers to one of its functions.
    ///
    /// # Errors
    /// If it has no such function for such arguments, or it fails.
    fn call(&self, function: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, Error>;
}

/// A text, borrowed or shared.
#[derive(Clone)]
pub enum Text<'a> {
    /// Somebody else's.
    Borrowed(&'a str),
    /// Made by the expression.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl<T: Into<String>> From<T> for Value<'_> {
    fn from(text: T) -> Self {
        Value::String(Text::Shared(text.into().into()))
    }
}

/// A list, with its schema where one is known.
#[derive(Clone)]
pub enum List<'a> {
    /// Part of an object.
    Json(&'a [JsonValue], Option<&'a JsonValue>),
    /// Made by the expression.
    Made(Arc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items, schema) => Some(Value::of_json(items.get(at)?, items_of(*schema))),
            List::Made(items) => items.get(at).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// `set` or `map`, where the schema says that the order doesn't matter.
    pub(crate) fn list_type(&self) -> &'a str {
        let List::Json(_, Some(schema)) = self else { return "atomic" };
        schema.get("x-kubernetes-list-type").and_then(JsonValue::as_str).unwrap_or("atomic")
    }
}

fn items_of(schema: Option<&JsonValue>) -> Option<&JsonValue> {
    schema?.get("items")
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// A whole number; those of the other kind that fit are here too.
    Int(i64),
    /// A whole number above all of those.
    Uint(u64),
    /// A text.
    String(Arc<str>),
}

impl Key {
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        match value {
            Value::Bool(b) => Some(Key::Bool(*b)),
            Value::Int(n) => Some(Key::Int(*n)),
            Value::Uint(n) => Some(i64::try_from(*n).map_or(Key::Uint(*n), Key::Int)),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(Key::Int(*n as i64)),
            Value::String(text) => Some(Key::String(Arc::from(&**text))),
            _ => None,
        }
    }

    pub(crate) fn to_value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(text) => Value::String(Text::Shared(text.clone())),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(b) => write!(f, "{b}"),
            Key::Int(n) => write!(f, "{n}"),
            Key::Uint(n) => write!(f, "{n}"),
            Key::String(text) => f.write_str(text),
        }
    }
}

/// A map, with its schema where one is known.
#[derive(Clone)]
pub enum Map<'a> {
    /// Part of an object.
    Json(&'a Json<String, JsonValue>, Option<&'a JsonValue>),
    /// Made by the expression.
    Made(Arc<BTreeMap<Key, Value<'a>>>),
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Made(map) => map.len(),
        }
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Json(map, schema), Value::String(name)) => {
                map.get(&**name).map(|value| Value::of_json(value, value_schema(*schema, name)))
            }
            (Map::Json(..), _) => None,
            (Map::Made(map), key) => map.get(&Key::of(key)?).cloned(),
        }
    }

    /// The value of a field; what a schema says has names that may be escaped.
    pub(crate) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Json(map, schema) => {
                let typed = schema.is_some_and(|schema| schema.get("properties").is_some());
                let escaped = if typed && !map.contains_key(name) { unescaped(name) } else { None };
                let name = escaped.as_deref().unwrap_or(name);
                map.get(name).map(|value| Value::of_json(value, value_schema(*schema, name)))
            }
            Map::Made(map) => map.get(&Key::String(Arc::from(name))).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (Key, Value<'a>)> + '_> {
        match self {
            Map::Json(map, schema) => Box::new(map.iter().map(|(key, value)| {
                (Key::String(Arc::from(key.as_str())), Value::of_json(value, value_schema(*schema, key)))
            })),
            Map::Made(map) => Box::new(map.iter().map(|(key, value)| (key.clone(), value.clone()))),
        }
    }
}

fn value_schema<'a>(schema: Option<&'a JsonValue>, name: &str) -> Option<&'a JsonValue> {
    let schema = schema?;
    let property = schema.get("properties").and_then(|all| all.get(name));
    property.or_else(|| schema.get("additionalProperties").filter(|values| values.is_object()))
}

impl<'a> Value<'a> {
    /// A value of JSON, as its schema says.
    pub fn of_json(value: &'a JsonValue, schema: Option<&'a JsonValue>) -> Self {
        let text =
            |key: &str| schema.and_then(|s| s.get(key)).and_then(JsonValue::as_str).unwrap_or_default();
        match value {
            JsonValue::Null => Value::Null,
            JsonValue::Bool(b) => Value::Bool(*b),
            JsonValue::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) if text("type") != "number" => Value::Int(whole),
                (None, Some(whole)) if text("type") != "number" => Value::Uint(whole),
                _ => Value::Double(number.as_f64().unwrap_or_default()),
            },
            JsonValue::String(string) => {
                let plain = Value::String(Text::Borrowed(string));
                match text("format") {
                    "" => plain,
                    "date-time" => time::parse_any(string).map_or(plain, Value::Timestamp),
                    "date" => time::parse_any(&format!("{string}T00:00:00Z")).map_or(plain, Value::Timestamp),
                    "duration" => time::parse_duration(string).map_or(plain, Value::Duration),
                    "byte" => STANDARD.decode(string).map_or(plain, |bytes| Value::Bytes(bytes.into())),
                    _ => plain,
                }
            }
            JsonValue::Array(items) => Value::List(List::Json(items, schema)),
            JsonValue::Object(map) => Value::Map(Map::Json(map, schema)),
        }
    }

    /// A list that the expression made.
    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Made(Arc::new(items)))
    }

    pub(crate) fn map(map: BTreeMap<Key, Value<'a>>) -> Self {
        Value::Map(Map::Made(Arc::new(map)))
    }

    pub(crate) fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value's type, by name.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Message(name, _) => name,
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::External(value) => value.type_name(),
        }
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// If there is no such JSON, as of a type; [`Error::TooExpensive`] if it is very large: an expression can name
    /// one large object many times for little.
    pub fn to_json(&self) -> Result<JsonValue, Error> {
        self.write(&mut Budget::new(LARGEST_RESULT))
    }

    fn write(&self, room: &mut Budget) -> Result<JsonValue, Error> {
        room.charge(1)?;
        Ok(match self {
            Value::Null => JsonValue::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) => (*n).into(),
            Value::Uint(n) => (*n).into(),
            Value::Double(n) => (*n).into(),
            Value::String(text) => {
                room.charge_bytes(text.len())?;
                (**text).into()
            }
            Value::Bytes(bytes) => {
                room.charge_bytes(bytes.len())?;
                STANDARD.encode(bytes).into()
            }
            Value::Timestamp(time) => time.to_string().into(),
            Value::Duration(nanos) => time::duration_text(*nanos).into(),
            Value::Quantity(quantity) => quantity.to_string().into(),
            Value::Optional(None) => JsonValue::Null,
            Value::Optional(Some(value)) => value.write(room)?,
            Value::List(List::Json(items, _)) => {
                items.iter().try_for_each(|item| charge(item, room))?;
                JsonValue::Array(items.to_vec())
            }
            Value::List(list) => {
                JsonValue::Array(list.iter().map(|item| item.write(room)).collect::<Result<_, _>>()?)
            }
            Value::Map(Map::Json(map, _)) => {
                map.iter().try_for_each(|(key, value)| {
                    room.charge_bytes(key.len())?;
                    charge(value, room)
                })?;
                JsonValue::Object((*map).clone())
            }
            Value::Map(map) | Value::Message(_, map) => {
                let mut object = Json::new();
                for (key, value) in map.iter() {
                    object.insert(key.to_string(), value.write(room)?);
                }
                JsonValue::Object(object)
            }
            other => return Error::failed(format!("a value of type {} can't be written", other.type_name())),
        })
    }
}

/// Pays for a copy of `value`.
fn charge(value: &JsonValue, room: &mut Budget) -> Result<(), Error> {
    room.charge(1)?;
    match value {
        JsonValue::String(text) => room.charge_bytes(text.len()),
        JsonValue::Array(items) => items.iter().try_for_each(|item| charge(item, room)),
        JsonValue::Object(map) => map.iter().try_for_each(|(key, value)| {
            room.charge_bytes(key.len())?;
            charge(value, room)
        }),
        _ => Ok(()),
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            Ok(json) => write!(f, "{}({json})", self.type_name()),
            Err(_) => f.write_str(self.type_name()),
        }
    }
}
