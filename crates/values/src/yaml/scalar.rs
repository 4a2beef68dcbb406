//! What a scalar without quotes means (go-yaml v2, `resolve.go`).

use serde_json::{Number, Value};

use crate::json::as_go_reads;

/// What a scalar may be before it is JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Above the largest `i64`.
    Large(u64),
    Float(f64),
    Text(String),
    /// `<<`
    Merge,
}

/// The tags that tell a scalar's type, of `tag:yaml.org,2002:`.
const TYPES: [&str; 6] = ["str", "bool", "int", "float", "null", "timestamp"];

/// A scalar without quotes; `tag` is the rest of `tag:yaml.org,2002:...`.
///
/// # Errors
/// If it isn't of the type that the tag says.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Scalar, String> {
    if !TYPES.contains(&tag) || tag == "str" {
        return Ok(Scalar::Text(text.to_owned()));
    }
    let found = plain(text);
    let fits = match (tag, found) {
        ("float", Scalar::Int(number)) => return Ok(Scalar::Float(number as f64)),
        ("timestamp", Scalar::Text(text)) if is_timestamp(&text) => return Ok(Scalar::Text(text)),
        ("bool", found @ Scalar::Bool(_))
        | ("int", found @ (Scalar::Int(_) | Scalar::Large(_)))
        | ("float", found @ Scalar::Float(_))
        | ("null", found @ Scalar::Null) => Some(found),
        _ => None,
    };
    fits.ok_or_else(|| format!("cannot decode `{}` as a !!{tag}", crate::cut(text, 100)))
}

/// A scalar without quotes and tag.
pub(super) fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        "<<" => return Scalar::Merge,
        _ => {}
    }
    // The longest number that means one: longer texts aren't looked through.
    if text.len() > 400 {
        return Scalar::Text(text.to_owned());
    }
    let found = match text.as_bytes()[0] {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' if !is_timestamp(text) => number(&text.replace('_', "")),
        _ => None,
    };
    found.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Scalar> {
    integer(text).or_else(|| float(text))
}

/// A whole number as Go writes them: `0x`, `0o`, `0b`, and a leading 0 for octal.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let (radix, digits) = match lower.as_str() {
        "0x" => (16, &digits[2..]),
        "0o" => (8, &digits[2..]),
        "0b" => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    match (negative, i64::try_from(size)) {
        (false, Ok(number)) => Some(Scalar::Int(number)),
        (false, Err(_)) if !text.starts_with('+') => Some(Scalar::Large(size)),
        (true, _) => 0i64.checked_sub_unsigned(size).map(Scalar::Int),
        _ => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, of a size that there is.
fn float(text: &str) -> Option<Scalar> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if whole == 0 && length == 0 {
            return None;
        }
        rest = &fraction[length..];
    } else if whole == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || digits(exponent) != exponent.len() {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Scalar::Float)
}

/// Whether go-yaml takes it for a time, which stays a text: `2001-1-2`, and with a time of day behind `T`, `t` or a blank.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let number = |text: &str, most: u32| {
        matches!(text.len(), 1 | 2)
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse().is_ok_and(|number: u32| number <= most)
    };
    let day_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let is_day = year.len() == 4
        && year.bytes().all(|b| b.is_ascii_digit())
        && number(month, 12)
        && number(&rest[..day_end], 31);
    // Whatever follows, neither a whole number nor one with a fraction looks so: `-` stands within.
    let ends = day_end == rest.len() || rest[day_end..].starts_with(['T', 't', ' ']);
    is_day && ends
}

impl Scalar {
    /// As Go writes it in JSON.
    ///
    /// # Errors
    /// If JSON can't say it.
    pub(super) fn into_json(self) -> Result<Value, String> {
        Ok(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Int(number) => number.into(),
            Scalar::Large(number) => Value::Number(as_go_reads(number)),
            // A number without a fraction has no point in JSON as Go writes it, and is a whole number to whom reads it.
            Scalar::Float(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => (number as i64).into(),
            Scalar::Float(number) => Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| "JSON has no such number: .inf or .nan".to_owned())?,
            Scalar::Text(text) => text.into(),
            Scalar::Merge => "<<".into(),
        })
    }

    /// As the key of an object.
    ///
    /// # Errors
    /// If it can be none.
    pub(super) fn into_key(self) -> Result<String, String> {
        Ok(match self {
            Scalar::Null => return Err("null can't be a key".into()),
            Scalar::Large(number) => return Err(format!("the number {number} can't be a key")),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(number) => number.to_string(),
            Scalar::Float(number) => float_key(number as f32),
            Scalar::Text(text) => text,
            Scalar::Merge => "<<".into(),
        })
    }
}

/// `strconv.FormatFloat(number, 'g', -1, 32)`.
fn float_key(number: f32) -> String {
    if number.is_nan() {
        return ".nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    number.to_string()
}
