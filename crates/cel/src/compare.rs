//! What is equal and what comes first.

use std::cmp::Ordering;

use crate::budget::Budget;
use crate::error::Error;
use crate::value::{List, Map, Value};

/// Whether two values are the same; values of different types aren't, but numbers are compared as numbers.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<bool, Error> {
    budget.charge(1)?;
    Ok(match (a, b) {
        (Value::String(a), Value::String(b)) => {
            budget.charge_bytes(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.charge_bytes(a.len().min(b.len()))?;
            a == b
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b, budget)?,
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b, budget)?,
        (Value::Message(name, a), Value::Message(other, b)) => name == other && equal_maps(a, b, budget)?,
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equal(a, b, budget)?,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a.cmp_precedence(b).is_eq(),
        (Value::Format(a), Value::Format(b)) => a.name == b.name,
        (a, b) => numbers(a, b) == Some(Ordering::Equal),
    })
}

fn equal_lists(a: &List<'_>, b: &List<'_>, budget: &mut Budget) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let in_any_order = a.list_type() != "atomic" || b.list_type() != "atomic";
    for (at, item) in a.iter().enumerate() {
        let found = match in_any_order {
            true => contains(b, &item, budget)?,
            false => b.get(at).map_or(Ok(false), |other| equal(&item, &other, budget))?,
        };
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>, budget: &mut Budget) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.iter() {
        match b.get(&key.to_value()) {
            Some(other) if equal(&value, &other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether an item of the list is that value.
pub(crate) fn contains(list: &List<'_>, wanted: &Value<'_>, budget: &mut Budget) -> Result<bool, Error> {
    for item in list.iter() {
        if equal(&item, wanted, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which number is larger; nothing for what is no number.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => whole(b).and_then(|b| with_double(b, *a)).map(Ordering::reverse),
        (a, Value::Double(b)) => with_double(whole(a)?, *b),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    }
}

fn with_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Far outside, and rounded to whole numbers within: exact where whole numbers are.
    if double.abs() > 1e30 {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

/// Which comes first, of values that have an order; nothing for a number that is none.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<Option<Ordering>, Error> {
    budget.charge(1)?;
    Ok(match (a, b) {
        (Value::String(a), Value::String(b)) => {
            budget.charge_bytes(a.len().min(b.len()))?;
            Some((**a).cmp(&**b))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.charge_bytes(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(a, b),
        _ => return Error::failed("no such overload"),
    })
}
