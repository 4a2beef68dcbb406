//! The operators.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::budget::Budget;
use crate::compare::{contains, equal, order};
use crate::error::Error;
use crate::time;
use crate::value::{List, Text, Value};

fn overflow<'a>(what: &str) -> Result<Value<'a>, Error> {
    Error::failed(format!("{what} overflow"))
}

fn int<'a>(value: Option<i64>) -> Result<Value<'a>, Error> {
    value.map_or_else(|| overflow("integer"), |n| Ok(Value::Int(n)))
}

fn uint<'a>(value: Option<u64>) -> Result<Value<'a>, Error> {
    value.map_or_else(|| overflow("unsigned integer"), |n| Ok(Value::Uint(n)))
}

/// An operator with one side.
pub(crate) fn unary<'a>(operator: &str, a: &Value<'a>) -> Result<Value<'a>, Error> {
    match (operator, a) {
        ("!_", Value::Bool(b)) => Ok(Value::Bool(!b)),
        ("-_", Value::Int(n)) => int(n.checked_neg()),
        ("-_", Value::Double(n)) => Ok(Value::Double(-n)),
        _ => Error::failed("no such overload"),
    }
}

/// An operator with two sides; nothing if it is none.
pub(crate) fn binary<'a>(
    operator: &str,
    a: &Value<'a>,
    b: &Value<'a>,
    budget: &mut Budget,
) -> Option<Result<Value<'a>, Error>> {
    Some(match operator {
        "_==_" => equal(a, b, budget).map(Value::Bool),
        "_!=_" => equal(a, b, budget).map(|same| Value::Bool(!same)),
        "_<_" => ordered(a, b, budget, Ordering::is_lt),
        "_<=_" => ordered(a, b, budget, Ordering::is_le),
        "_>_" => ordered(a, b, budget, Ordering::is_gt),
        "_>=_" => ordered(a, b, budget, Ordering::is_ge),
        "@in" => within(a, b, budget),
        "_+_" => add(a, b, budget),
        "_-_" => subtract(a, b),
        "_*_" | "_/_" | "_%_" => multiply(operator, a, b),
        _ => return None,
    })
}

fn ordered<'a>(
    a: &Value<'a>,
    b: &Value<'a>,
    budget: &mut Budget,
    fits: fn(Ordering) -> bool,
) -> Result<Value<'a>, Error> {
    match order(a, b, budget)? {
        Some(found) => Ok(Value::Bool(fits(found))),
        None => Error::failed("NaN values cannot be ordered"),
    }
}

fn within<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    match b {
        Value::List(list) => contains(list, a, budget).map(Value::Bool),
        Value::Map(map) => Ok(Value::Bool(map.get(a).is_some())),
        _ => Error::failed("no such overload"),
    }
}

fn add<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            budget.charge_bytes(a.len() + b.len())?;
            Ok(Value::String(Text::Shared([&**a, &**b].concat().into())))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.charge_bytes(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => concatenate(a, b, budget),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map_or_else(|| overflow("duration"), |n| Ok(Value::Duration(n)))
        }
        (Value::Timestamp(time), Value::Duration(span)) | (Value::Duration(span), Value::Timestamp(time)) => {
            time::shifted(*time, *span)
        }
        _ => Error::failed("no such overload"),
    }
}

/// Both lists; of a set, what the first has not; of a list with keys, the second's items in place of those of
/// the first that have the same keys.
fn concatenate<'a>(a: &List<'a>, b: &List<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
    budget.charge((a.len() + b.len()) as u64)?;
    let mut items: Vec<Value<'a>> = a.iter().collect();
    match a.list_type() {
        "set" => {
            for item in b.iter() {
                if !contains(a, &item, budget)? {
                    items.push(item);
                }
            }
        }
        "map" => {
            let keys = keys_of(a);
            for item in b.iter() {
                let mut place = None;
                for (at, known) in items.iter().enumerate() {
                    if same_keys(&keys, known, &item, budget)? {
                        place = Some(at);
                        break;
                    }
                }
                match place {
                    Some(at) => items[at] = item,
                    None => items.push(item),
                }
            }
        }
        _ => items.extend(b.iter()),
    }
    Ok(Value::List(List::Made(Arc::new(items))))
}

fn keys_of<'a>(list: &List<'a>) -> Vec<&'a str> {
    let List::Json(_, Some(schema)) = list else { return Vec::new() };
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(serde_json::Value::as_array);
    keys.into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
}

fn same_keys(keys: &[&str], a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<bool, Error> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let same = match (a.field(key), b.field(key)) {
            (Some(a), Some(b)) => equal(&a, &b, budget)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map_or_else(|| overflow("duration"), |n| Ok(Value::Duration(n)))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => time::between(*a, *b),
        (Value::Timestamp(time), Value::Duration(span)) => match span.checked_neg() {
            Some(span) => time::shifted(*time, span),
            None => overflow("duration"),
        },
        _ => Error::failed("no such overload"),
    }
}

fn multiply<'a>(operator: &str, a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    let by_zero = || Error::failed(if operator == "_%_" { "modulus by zero" } else { "division by zero" });
    match (operator, a, b) {
        ("_/_" | "_%_", Value::Int(_), Value::Int(0)) | ("_/_" | "_%_", Value::Uint(_), Value::Uint(0)) => {
            by_zero()
        }
        ("_*_", Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        ("_/_", Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        ("_%_", Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        ("_*_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        ("_/_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        ("_%_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Error::failed("no such overload"),
    }
}
