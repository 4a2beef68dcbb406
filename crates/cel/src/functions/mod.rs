//! The functions of Kubernetes' environment: CEL's own, those of cel-go's extensions for strings, lists, sets
//! and two-variable macros, and those of `k8s.io/apiserver/pkg/cel/library`.

pub(crate) mod clauses;
mod convert;
mod format;
mod lists;
mod network;
mod patterns;
mod print;
mod quantities;
mod strings;
mod url;
mod versions;

use crate::budget::Budget;
use crate::error::Error;
use crate::time;
use crate::value::Value;

pub(crate) use convert::CONVERSIONS;
pub use format::Format;
pub use quantities::Amount;
pub use url::Url;

pub(crate) use lists::sort_by;
pub(crate) use patterns::is_pattern;

type Answer<'a> = Result<Value<'a>, Error>;

fn no_overload<'a>() -> Answer<'a> {
    Error::failed("no such overload")
}

/// The type of that name, as a value.
pub(crate) fn type_named(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
    ];
    NAMES.into_iter().find(|known| *known == name)
}

/// A function.
pub(crate) fn function<'a>(name: &str, arguments: &[Value<'a>], budget: &mut Budget) -> Answer<'a> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str);
    if let Some((space, rest)) = name.split_once('.') {
        return match (space, arguments) {
            ("sets", [Value::List(a), Value::List(b)]) => lists::sets(rest, a, b, budget),
            ("optional", [Value::List(list)]) if rest == "unwrap" => {
                budget.charge(list.len() as u64)?;
                lists::unwrapped(list)
            }
            ("optional", arguments) => optional(rest, arguments),
            ("lists", [Value::Int(count)]) => lists::range(*count, budget),
            ("strings", [Value::String(text)]) => strings::quote(text, budget),
            ("ip", [Value::String(text)]) => network::is_canonical(text),
            ("format", []) => Ok(format::named(rest).map_or(Value::Null, Value::Format)),
            ("format", [Value::String(name)]) => Ok(match format::named(name) {
                Some(format) => Value::some(Value::Format(format)),
                None => Value::Optional(None),
            }),
            ("jsonpatch", [Value::String(text)]) => {
                budget.charge_bytes(text.len() * 2)?;
                Ok(text.replace('~', "~0").replace('/', "~1").into())
            }
            _ => no_overload(),
        };
    }
    if let Some(text) = text(0) {
        budget.charge_bytes(text.len())?;
    }
    match (name, arguments) {
        ("size", [value]) => size(value, budget),
        ("type", [value]) => {
            Ok(type_named(value.type_name()).map_or_else(|| Value::from(value.type_name()), Value::Type))
        }
        ("dyn", [value]) => Ok(value.clone()),
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            patterns::matches(text, pattern, budget)
        }
        ("url", [Value::String(text)]) => Url::parse(text).map(|url| Value::Url(url.into())),
        ("isURL", [Value::String(text)]) => Ok(Value::Bool(Url::parse(text).is_ok())),
        ("sign", [Value::Quantity(amount)]) => quantities::sign(amount),
        ("quantity" | "isQuantity", [Value::String(text)]) => quantities::parse(name, text),
        ("ip" | "isIP" | "cidr" | "isCIDR", [Value::String(text)]) => network::parse(name, text),
        ("semver" | "isSemver", [Value::String(text)]) => versions::parse(name, text, false),
        ("semver" | "isSemver", [Value::String(text), Value::Bool(loose)]) => {
            versions::parse(name, text, *loose)
        }
        (name, [value]) => convert::convert(name, value),
        _ => no_overload(),
    }
}

/// A method of a value.
pub(crate) fn method<'a>(
    name: &str,
    on: &Value<'a>,
    arguments: &[Value<'a>],
    budget: &mut Budget,
) -> Answer<'a> {
    match on {
        _ if name == "size" && arguments.is_empty() => size(on, budget),
        Value::String(text) => strings::method(name, text, arguments, budget),
        Value::List(list) => lists::method(name, list, arguments, budget),
        Value::Timestamp(at) => {
            let zone = arguments.first().and_then(Value::as_str);
            time::part(name, *at, zone).map(Value::Int)
        }
        Value::Duration(nanos) => Ok(Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            _ => nanos / 1_000_000,
        })),
        Value::Optional(held) => match (name, held) {
            ("hasValue", held) => Ok(Value::Bool(held.is_some())),
            ("value", Some(value)) => Ok((**value).clone()),
            ("value", None) => Error::failed("optional.none() dereference"),
            _ => no_overload(),
        },
        Value::Url(url) => url.part(name, budget),
        Value::Quantity(quantity) => quantities::method(name, quantity, arguments),
        Value::Ip(ip) => network::ip_method(name, *ip),
        Value::Cidr(of) => network::cidr_method(name, *of, arguments),
        Value::Semver(version) => versions::method(name, version, arguments),
        Value::Format(format) => match arguments {
            [Value::String(text)] => format.validate(text, budget),
            _ => no_overload(),
        },
        Value::External(value) => {
            budget.charge(1000)?;
            value.call(name, arguments)
        }
        _ => no_overload(),
    }
}

fn size<'a>(value: &Value<'_>, budget: &mut Budget) -> Answer<'a> {
    let size = match value {
        Value::String(text) => {
            budget.charge_bytes(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return no_overload(),
    };
    Ok(Value::Int(size as i64))
}

fn optional<'a>(name: &str, arguments: &[Value<'a>]) -> Answer<'a> {
    match (name, arguments) {
        ("none", []) => Ok(Value::Optional(None)),
        ("of", [value]) => Ok(Value::some(value.clone())),
        ("ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        _ => no_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        Value::Duration(nanos) => *nanos == 0,
        Value::Optional(held) => held.is_none(),
        _ => false,
    }
}
