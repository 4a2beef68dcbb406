//! Functions of lists, and of lists as sets.

use std::cmp::Ordering;

use super::{Answer, no_overload};
use crate::budget::Budget;
use crate::compare::{contains, equal, order};
use crate::error::Error;
use crate::operators;
use crate::value::{List, Value};

/// A method of a list.
pub(super) fn method<'a>(
    name: &str,
    list: &List<'a>,
    arguments: &[Value<'a>],
    budget: &mut Budget,
) -> Answer<'a> {
    budget.charge(list.len() as u64)?;
    match (name, arguments) {
        ("join", []) => join(list, "", budget),
        ("join", [Value::String(separator)]) => join(list, separator, budget),
        ("isSorted", []) => is_sorted(list, budget),
        ("sum", []) => sum(list, budget),
        ("min", []) => extreme(list, "min", Ordering::Less, budget),
        ("max", []) => extreme(list, "max", Ordering::Greater, budget),
        ("indexOf", [wanted]) => place(list.iter().enumerate(), wanted, budget),
        ("lastIndexOf", [wanted]) => {
            let items: Vec<_> = list.iter().enumerate().collect();
            place(items.into_iter().rev(), wanted, budget)
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(list, *from, *to),
        ("flatten", []) => flatten(list, 1, budget),
        ("flatten", [Value::Int(depth)]) => flatten(list, *depth, budget),
        ("reverse", []) => {
            let mut items: Vec<_> = list.iter().collect();
            items.reverse();
            Ok(Value::list(items))
        }
        ("distinct", []) => distinct(list, budget),
        ("sort", []) => {
            let items: Vec<_> = list.iter().collect();
            sort_by(&items.clone(), items, budget).map(Value::list)
        }
        ("first", []) => Ok(list.get(0).map_or(Value::Optional(None), Value::some)),
        ("last", []) => Ok(list
            .len()
            .checked_sub(1)
            .and_then(|at| list.get(at))
            .map_or(Value::Optional(None), Value::some)),
        ("unwrapOpt", []) => unwrapped(list),
        _ => no_overload(),
    }
}

/// What the optionals in a list hold.
pub(super) fn unwrapped<'a>(list: &List<'a>) -> Answer<'a> {
    let mut held = Vec::new();
    for item in list.iter() {
        match item {
            Value::Optional(item) => held.extend(item.map(|value| (*value).clone())),
            _ => return no_overload(),
        }
    }
    Ok(Value::list(held))
}

fn join<'a>(list: &List<'_>, separator: &str, budget: &mut Budget) -> Answer<'a> {
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        let Some(text) = item.as_str() else { return no_overload() };
        budget.charge_bytes(text.len() + separator.len())?;
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(out.into())
}

fn is_sorted<'a>(list: &List<'_>, budget: &mut Budget) -> Answer<'a> {
    let mut before: Option<Value<'_>> = None;
    for item in list.iter() {
        if let Some(before) = &before
            && order(before, &item, budget)? == Some(Ordering::Greater)
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(list: &List<'a>, budget: &mut Budget) -> Answer<'a> {
    let mut items = list.iter();
    let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        total = operators::binary("_+_", &total, &item, budget).unwrap_or_else(no_overload)?;
    }
    Ok(total)
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering, budget: &mut Budget) -> Answer<'a> {
    let mut items = list.iter();
    let Some(mut found) = items.next() else { return Error::failed(format!("{name} called on empty list")) };
    for item in items {
        if order(&item, &found, budget)? == Some(wanted) {
            found = item;
        }
    }
    Ok(found)
}

fn place<'a>(
    items: impl Iterator<Item = (usize, Value<'a>)>,
    wanted: &Value<'a>,
    budget: &mut Budget,
) -> Answer<'a> {
    for (at, item) in items {
        if equal(&item, wanted, budget)? {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Answer<'a> {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    match range.filter(|(from, to)| from <= to && *to <= list.len()) {
        Some((from, to)) => Ok(Value::list((from..to).filter_map(|at| list.get(at)).collect())),
        None => Error::failed(format!("cannot slice({from}, {to}), list is length {}", list.len())),
    }
}

fn flatten<'a>(list: &List<'a>, depth: i64, budget: &mut Budget) -> Answer<'a> {
    if depth < 0 {
        return Error::failed("level must be non-negative");
    }
    let mut out = Vec::new();
    flatten_into(list, depth.min(200), &mut out, budget)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(
    list: &List<'a>,
    depth: i64,
    out: &mut Vec<Value<'a>>,
    budget: &mut Budget,
) -> Result<(), Error> {
    for item in list.iter() {
        budget.charge(1)?;
        match item {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out, budget)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn distinct<'a>(list: &List<'a>, budget: &mut Budget) -> Answer<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    'items: for item in list.iter() {
        for known in &out {
            if equal(known, &item, budget)? {
                continue 'items;
            }
        }
        out.push(item);
    }
    Ok(Value::list(out))
}

/// The items in the order of their keys.
pub(crate) fn sort_by<'a>(
    keys: &[Value<'a>],
    items: Vec<Value<'a>>,
    budget: &mut Budget,
) -> Result<Vec<Value<'a>>, Error> {
    let mut failed = None;
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by(|a, b| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        order(&keys[*a], &keys[*b], budget).map(|found| found.unwrap_or(Ordering::Equal)).unwrap_or_else(
            |error| {
                failed = Some(error);
                Ordering::Equal
            },
        )
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(places.into_iter().filter_map(|at| items.get(at).cloned()).collect()),
    }
}

/// The numbers from 0 to below `count`.
pub(super) fn range<'a>(count: i64, budget: &mut Budget) -> Answer<'a> {
    budget.charge(u64::try_from(count).unwrap_or(0))?;
    Ok(Value::list((0..count).map(Value::Int).collect()))
}

/// `sets.contains`, `sets.equivalent` and `sets.intersects`.
pub(super) fn sets<'a>(name: &str, a: &List<'a>, b: &List<'a>, budget: &mut Budget) -> Answer<'a> {
    let mut all_in = |of: &List<'a>, within: &List<'a>| -> Result<bool, Error> {
        for item in of.iter() {
            if !contains(within, &item, budget)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(Value::Bool(match name {
        "contains" => all_in(b, a)?,
        "equivalent" => all_in(a, b)? && all_in(b, a)?,
        "intersects" => {
            for item in a.iter() {
                if contains(b, &item, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
        _ => return no_overload(),
    }))
}
