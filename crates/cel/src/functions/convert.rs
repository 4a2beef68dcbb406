//! Conversions between types.

use std::sync::Arc;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::time::{self, Moment};
use crate::value::Value;

/// The functions that convert a value to another type, or say or hide its own.
pub(crate) const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// `int(...)`, `string(...)` and so on.
pub(super) fn convert<'a>(to: &str, value: &Value<'a>) -> Answer<'a> {
    match to {
        "bool" => to_bool(value),
        "int" => to_int(value),
        "uint" => to_uint(value),
        "double" => to_double(value),
        "string" => to_string(value),
        "bytes" => match value {
            Value::Bytes(_) => Ok(value.clone()),
            Value::String(text) => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
            _ => no_overload(),
        },
        "timestamp" => match value {
            Value::Timestamp(_) => Ok(value.clone()),
            Value::String(text) => {
                time::parse_timestamp(text).map_or_else(|| wrong(value, to), |at| Ok(Value::Timestamp(at)))
            }
            Value::Int(seconds) => Moment::from_seconds(*seconds)
                .map(Value::Timestamp)
                .ok_or_else(|| Error::Failed("timestamp overflow".into())),
            _ => no_overload(),
        },
        "duration" => match value {
            Value::Duration(_) => Ok(value.clone()),
            Value::String(text) => {
                time::parse_duration(text).map_or_else(|| wrong(value, to), |span| Ok(Value::Duration(span)))
            }
            // The checker takes it, but cel-go has never been able to do it.
            Value::Int(_) => wrong(value, to),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn wrong<'a>(value: &Value<'_>, to: &str) -> Answer<'a> {
    let to = match to {
        "timestamp" => "google.protobuf.Timestamp",
        "duration" => "google.protobuf.Duration",
        to => to,
    };
    Error::failed(format!("type conversion error from '{}' to '{to}'", value.type_name()))
}

fn to_bool<'a>(value: &Value<'a>) -> Answer<'a> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "true" | "TRUE" | "True" | "T" => Ok(Value::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" | "F" => Ok(Value::Bool(false)),
            _ => wrong(value, "bool"),
        },
        _ => no_overload(),
    }
}

fn to_int<'a>(value: &Value<'a>) -> Answer<'a> {
    let overflow = || Error::failed("integer overflow");
    // Both ends are doubles, and neither is taken.
    let fits = |n: f64| n > i64::MIN as f64 && n < i64::MAX as f64;
    Ok(Value::Int(match value {
        Value::Int(n) => *n,
        Value::Uint(n) => match i64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return overflow(),
        },
        Value::Double(n) if fits(*n) => *n as i64,
        Value::Double(_) => return overflow(),
        Value::String(text) => match text.parse() {
            Ok(n) => n,
            Err(_) => return wrong(value, "int"),
        },
        Value::Timestamp(time) => time.seconds(),
        Value::Duration(nanos) => *nanos,
        _ => return no_overload(),
    }))
}

fn to_uint<'a>(value: &Value<'a>) -> Answer<'a> {
    let overflow = || Error::failed("unsigned integer overflow");
    Ok(Value::Uint(match value {
        Value::Uint(n) => *n,
        Value::Int(n) => match u64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return overflow(),
        },
        Value::Double(n) if *n >= 0.0 && *n < u64::MAX as f64 => *n as u64,
        Value::Double(_) => return overflow(),
        // Go takes no sign here.
        Value::String(text) => match text.parse() {
            Ok(n) if !text.starts_with('+') => n,
            _ => return wrong(value, "uint"),
        },
        _ => return no_overload(),
    }))
}

fn to_double<'a>(value: &Value<'a>) -> Answer<'a> {
    Ok(Value::Double(match value {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => match parse_double(text) {
            Some(n) => n,
            None => return wrong(value, "double"),
        },
        _ => return no_overload(),
    }))
}

/// A double; infinity only by its name, and no number that is too large.
fn parse_double(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (!number.is_infinite() || !text.contains(|c: char| c.is_ascii_digit())).then_some(number)
}

/// A double as Go writes it for `%g`: the fewest digits that say it, with an exponent where it is below -4 or above 5.
fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

fn to_string<'a>(value: &Value<'a>) -> Answer<'a> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bytes(bytes) if std::str::from_utf8(bytes).is_err() => {
            Error::failed("invalid UTF-8 in bytes, cannot convert to string")
        }
        value => plain(value).map_or_else(no_overload, |text| Ok(text.into())),
    }
}

/// A scalar as a text.
pub(super) fn plain(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => double_text(*n),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => time::duration_text(*nanos),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(network) => network.to_string(),
        Value::Type(name) => (*name).to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_go_writes_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1e300, "-1e+300"),
            (i64::MAX as f64, "9.223372036854776e+18"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(double_text(number), text);
        }
        assert_eq!(parse_double("1e400"), None);
        assert_eq!(parse_double("-Infinity"), Some(f64::NEG_INFINITY));
    }
}
