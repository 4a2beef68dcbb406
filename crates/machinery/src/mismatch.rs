//! Why a value doesn't fit its field, in the words of upstream's decoder: `sigs.k8s.io/json`, which is Go's `encoding/json`.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::schema::{Schema, Shape};

/// A value that its field can't hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct TypeMismatch(Why);

#[derive(Debug, Clone, PartialEq)]
enum Why {
    /// A value of JSON that is none of Go's type.
    Kind(Kind),
    /// A text or a number that doesn't say what it should.
    Content(String),
}

#[derive(Debug, Clone, PartialEq)]
struct Kind {
    /// What it is.
    value: String,
    /// The type that it can't be.
    wanted: String,
    /// How many lists and maps there are between the field and the value.
    depth: usize,
    /// The field's object in Go.
    owner: &'static str,
    /// The fields that lead to it, the last one first.
    fields: Vec<&'static str>,
}

impl TypeMismatch {
    /// A value that can't be of the shape.
    pub(crate) fn of_shape(value: &Value, shape: &Shape) -> Self {
        // Those read a value of their own, out of JSON again.
        let wanted = match shape {
            Shape::Time | Shape::MicroTime => "string".to_owned(),
            Shape::IntOrString => "int32".to_owned(),
            shape => go_type(shape),
        };
        TypeMismatch::of_type(value, wanted)
    }

    /// A value that can't be of a type in Go.
    pub(crate) fn of_type(value: &Value, wanted: impl Into<String>) -> Self {
        let wanted = wanted.into();
        let value = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(&*wanted, "int32" | "int64") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        TypeMismatch(Why::Kind(Kind { value, wanted, depth: 0, owner: "", fields: Vec::new() }))
    }

    /// A value that doesn't say what it should, in the words of what reads it.
    pub(crate) fn content(why: impl Into<String>) -> Self {
        TypeMismatch(Why::Content(why.into()))
    }

    /// The same, of an item of a list or a value of a map.
    pub(crate) fn within(mut self) -> Self {
        if let Why::Kind(kind) = &mut self.0 {
            kind.depth += usize::from(kind.owner.is_empty());
        }
        self
    }

    /// The same, in a field of an object.
    pub(crate) fn in_field(mut self, schema: &Schema, field: &'static str) -> Self {
        if let Why::Kind(kind) = &mut self.0 {
            if kind.owner.is_empty() {
                kind.owner = schema.name.rsplit('.').next().unwrap_or_default();
                let parts = (0..kind.depth).try_fold(schema.named_type(field).unwrap_or_default(), inner);
                if let Some(named) = parts.filter(|named| !named.is_empty()) {
                    named.clone_into(&mut kind.wanted);
                }
            }
            kind.fields.push(field);
        }
        self
    }
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind { value, wanted, owner, fields, .. } = match &self.0 {
            Why::Content(why) => return f.write_str(why),
            Why::Kind(kind) => kind,
        };
        if fields.is_empty() {
            return write!(f, "json: cannot unmarshal {value} into Go value of type {wanted}");
        }
        let path: Vec<&str> = fields.iter().rev().copied().collect();
        let path = path.join(".");
        write!(f, "json: cannot unmarshal {value} into Go struct field {owner}.{path} of type {wanted}")
    }
}

/// The type of the items or values of a list or map.
fn inner(list: &'static str, _: usize) -> Option<&'static str> {
    list.strip_prefix("[]").or_else(|| list.strip_prefix("map[")?.split_once(']').map(|(_, values)| values))
}

/// A shape's type in Go, where it has no name of its own.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Text => "string".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Any => "interface {}".to_owned(),
        Shape::Object(of) | Shape::ObjectOrBoolean(of) | Shape::ObjectOrList(of) => {
            let mut parts = of.get().name.rsplit('.');
            let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{name}")
        }
        Shape::List(items) => format!("[]{}", go_type(items)),
        Shape::Map(values) => format!("map[string]{}", go_type(values)),
    }
}

/// What is wrong with a text that is no quantity: `resource.ParseQuantity`.
pub(crate) fn quantity_fault(text: &str) -> &'static str {
    const FORM: &str =
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let digits = |text: &str| text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut behind = &rest[rest.len() - digits(rest)..];
    if let Some(fraction) = behind.strip_prefix('.') {
        behind = &fraction[fraction.len() - digits(fraction)..];
    }
    let number = &rest[..rest.len() - behind.len()];
    let exponent = behind.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    match () {
        () if text.is_empty() || digits(exponent) > 0 => FORM,
        () if !number.is_empty() && !number.bytes().any(|byte| byte.is_ascii_digit()) => {
            "unable to parse numeric part of quantity"
        }
        () => "unable to parse quantity's suffix",
    }
}

/// The canonical form of a text in base64, if it has another: Go reads over the ends of lines, and over bits behind the last byte.
///
/// # Errors
/// Where it is none.
pub(crate) fn canonical_base64(text: &str) -> Result<Option<String>, TypeMismatch> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    if STANDARD.decode(text).is_ok() {
        return Ok(None);
    }
    let wrong = |at: usize| TypeMismatch::content(format!("illegal base64 data at input byte {at}"));
    if let Some(at) = base64_fault(text.as_bytes()) {
        return Err(wrong(at));
    }
    let plain: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    LENIENT.decode(&plain).map(|bytes| Some(STANDARD.encode(bytes))).map_err(|_| wrong(0))
}

/// Where Go finds that a text is no base64 (`encoding/base64`).
fn base64_fault(text: &[u8]) -> Option<usize> {
    let is_end_of_line = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let behind_lines = |at: usize| at + text[at..].iter().take_while(|byte| is_end_of_line(byte)).count();
    let (mut at, mut place) = (0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => place = (place + 1) % 4,
            byte if is_end_of_line(byte) => {}
            b'=' if place >= 2 => {
                let mut end = at + 1;
                if place == 2 {
                    end = behind_lines(end);
                    match text.get(end) {
                        None => return Some(text.len()),
                        Some(b'=') => end += 1,
                        Some(_) => return Some(end - 1),
                    }
                }
                end = behind_lines(end);
                return (end < text.len()).then_some(end);
            }
            _ => return Some(at),
        }
        at += 1;
    }
    (place > 0).then(|| text.len() - place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_refused_in_upstreams_words() {
        for (text, why) in [
            ("", "quantities must match"),
            ("1x", "quantities must match"),
            ("abc", "quantities must match"),
            ("1 Gi", "quantities must match"),
            ("1KK", "unable to parse quantity's suffix"),
            ("1e", "unable to parse quantity's suffix"),
            (".", "unable to parse numeric part"),
        ] {
            assert!(quantity_fault(text).starts_with(why), "{text:?}: {}", quantity_fault(text));
        }
    }

    #[test]
    fn base64_is_read_as_go_does() {
        for (text, canonical) in [
            ("aGVsbG8=", Ok(None)),
            ("aGVs\nbG8=\n", Ok(Some("aGVsbG8="))),
            ("aGVsbG9=", Ok(Some("aGVsbG8="))),
            ("", Ok(None)),
            ("no!", Err(2)),
            ("aGVsbG8", Err(4)),
            ("aGVsbG8=x", Err(8)),
            ("aGVsb===", Err(5)),
            ("aGVsbA=", Err(7)),
            ("=", Err(0)),
        ] {
            let canonical = canonical
                .map(|canonical| canonical.map(str::to_owned))
                .map_err(|at| TypeMismatch::content(format!("illegal base64 data at input byte {at}")));
            assert_eq!(canonical_base64(text), canonical, "{text:?}");
        }
    }
}
