//! Amounts of resources.

use super::{Answer, no_overload};
use crate::error::Error;
use crate::quantity::Quantity;
use crate::value::Value;

/// `quantity` and `isQuantity`.
pub(super) fn parse<'a>(function: &str, text: &str) -> Answer<'a> {
    match (function, Quantity::parse(text)) {
        ("isQuantity", parsed) => Ok(Value::Bool(parsed.is_ok())),
        (_, Ok(quantity)) => Ok(Value::Quantity(quantity)),
        (_, Err(error)) => Error::failed(error.to_string()),
    }
}

pub(super) fn method<'a>(name: &str, of: &Quantity, arguments: &[Value<'a>]) -> Answer<'a> {
    let whole = || i64::try_from(of.units()).ok().filter(|_| of.is_whole());
    Ok(match (name, arguments) {
        ("sign", []) => Value::Int(of.cmp(&Quantity::default()) as i64),
        ("isInteger", []) => Value::Bool(whole().is_some()),
        ("asInteger", []) => match whole() {
            Some(n) => Value::Int(n),
            None => return Error::failed("cannot convert value to integer"),
        },
        ("asApproximateFloat", []) => Value::Double(of.nanos() as f64 / 1e9),
        ("add", [Value::Quantity(other)]) => Value::Quantity(of.plus(other)),
        ("add", [Value::Int(n)]) => Value::Quantity(of.plus(&Quantity::from_units(*n))),
        ("sub", [Value::Quantity(other)]) => Value::Quantity(of.plus(&other.negated())),
        ("sub", [Value::Int(n)]) => Value::Quantity(of.plus(&Quantity::from_units(*n).negated())),
        ("isLessThan", [Value::Quantity(other)]) => Value::Bool(of < other),
        ("isGreaterThan", [Value::Quantity(other)]) => Value::Bool(of > other),
        ("compareTo", [Value::Quantity(other)]) => Value::Int(of.cmp(other) as i64),
        _ => return no_overload(),
    })
}
