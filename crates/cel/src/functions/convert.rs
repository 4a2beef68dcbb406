//! Conversions between types.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::time;
use crate::value::Value;

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
            Value::String(text) => time::parse_timestamp(text)
                .map(Value::Timestamp)
                .ok_or_else(|| Error::Failed(format!("{:?} is no timestamp", &**text))),
            Value::Int(seconds) => Timestamp::from_second(*seconds)
                .map(Value::Timestamp)
                .map_err(|_| Error::Failed("timestamp overflow".into())),
            _ => no_overload(),
        },
        "duration" => match value {
            Value::Duration(_) => Ok(value.clone()),
            Value::String(text) => time::parse_duration(text)
                .map(Value::Duration)
                .ok_or_else(|| Error::Failed(format!("{:?} is no duration", &**text))),
            Value::Int(nanos) => Ok(Value::Duration(*nanos)),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn to_bool<'a>(value: &Value<'a>) -> Answer<'a> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "true" | "TRUE" | "True" | "T" => Ok(Value::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" | "F" => Ok(Value::Bool(false)),
            other => Error::failed(format!("{other:?} is no bool")),
        },
        _ => no_overload(),
    }
}

fn to_int<'a>(value: &Value<'a>) -> Answer<'a> {
    let overflow = || Error::Failed("integer overflow".into());
    Ok(Value::Int(match value {
        Value::Int(n) => *n,
        Value::Uint(n) => i64::try_from(*n).map_err(|_| overflow())?,
        Value::Double(n)
            if n.is_finite() && *n > -9.223_372_036_854_775e18 && *n < 9.223_372_036_854_775e18 =>
        {
            *n as i64
        }
        Value::Double(_) => return Err(overflow()),
        Value::String(text) => text.parse().map_err(|_| Error::Failed(format!("{:?} is no int", &**text)))?,
        Value::Timestamp(time) => time.as_second(),
        Value::Duration(nanos) => *nanos,
        _ => return no_overload(),
    }))
}

fn to_uint<'a>(value: &Value<'a>) -> Answer<'a> {
    let overflow = || Error::Failed("unsigned integer overflow".into());
    Ok(Value::Uint(match value {
        Value::Uint(n) => *n,
        Value::Int(n) => u64::try_from(*n).map_err(|_| overflow())?,
        Value::Double(n) if n.is_finite() && *n >= 0.0 && *n < 1.844_674_407_370_955e19 => *n as u64,
        Value::Double(_) => return Err(overflow()),
        Value::String(text) => {
            text.parse().map_err(|_| Error::Failed(format!("{:?} is no uint", &**text)))?
        }
        _ => return no_overload(),
    }))
}

fn to_double<'a>(value: &Value<'a>) -> Answer<'a> {
    Ok(Value::Double(match value {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => {
            text.parse().map_err(|_| Error::Failed(format!("{:?} is no double", &**text)))?
        }
        _ => return no_overload(),
    }))
}

fn to_string<'a>(value: &Value<'a>) -> Answer<'a> {
    if let Value::String(_) = value {
        return Ok(value.clone());
    }
    plain(value).map_or_else(no_overload, |text| Ok(text.into()))
}

/// A scalar as a text.
pub(super) fn plain(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => time::duration_text(*nanos),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(network) => network.to_string(),
        Value::Type(name) => (*name).to_owned(),
        _ => return None,
    })
}
