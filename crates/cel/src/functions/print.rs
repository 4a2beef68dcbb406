//! `format`: values in a text, after `printf`.

use super::Answer;
use super::convert::plain;
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{List, Value};

/// The most digits behind the point. Ours: what is printed is paid for afterwards, so it must be small.
const MOST_DIGITS: usize = 100;

/// Puts values in the places of `%s`, `%d` and so on.
pub(super) fn format<'a>(pattern: &str, values: &List<'a>, budget: &mut Budget) -> Answer<'a> {
    let mut out = String::new();
    let (mut rest, mut next) = (pattern, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let mut precision = None;
        if let Some(behind) = rest.strip_prefix('.') {
            let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            precision = behind[..end].parse::<usize>().ok().filter(|digits| *digits <= MOST_DIGITS);
            if precision.is_none() {
                return Error::failed("could not parse formatting clause: invalid precision");
            }
            rest = &behind[end..];
        }
        let Some(clause) = rest.chars().next() else {
            return Error::failed("could not parse formatting clause: unexpected end of string");
        };
        rest = &rest[clause.len_utf8()..];
        let Some(value) = values.get(next) else {
            return Error::failed(format!("index {next} out of range"));
        };
        next += 1;
        let before = out.len();
        put(&mut out, clause, &value, precision.unwrap_or(6), budget)?;
        budget.charge_bytes(out.len() - before)?;
    }
    out.push_str(rest);
    budget.charge_bytes(out.len())?;
    Ok(out.into())
}

fn put(
    out: &mut String,
    clause: char,
    value: &Value<'_>,
    digits: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    let wrong = || {
        Error::failed(format!("error during formatting: %{clause} can't be used on {}", value.type_name()))
    };
    let text = match (clause, value) {
        ('s', value) => return put_any(out, value, budget),
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('f', value) => match double(value) {
            Some(n) => format!("{n:.digits$}"),
            None => return wrong(),
        },
        ('e', value) => match double(value) {
            Some(n) => exponent(n, digits),
            None => return wrong(),
        },
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('b', Value::Int(n)) => signed(*n, format!("{:b}", n.unsigned_abs())),
        ('b', Value::Uint(n)) => format!("{n:b}"),
        ('o', Value::Int(n)) => signed(*n, format!("{:o}", n.unsigned_abs())),
        ('o', Value::Uint(n)) => format!("{n:o}"),
        ('x', Value::Int(n)) => signed(*n, format!("{:x}", n.unsigned_abs())),
        ('X', Value::Int(n)) => signed(*n, format!("{:X}", n.unsigned_abs())),
        ('x', Value::Uint(n)) => format!("{n:x}"),
        ('X', Value::Uint(n)) => format!("{n:X}"),
        ('x' | 'X', Value::String(text)) => hex(text.as_bytes(), clause == 'X', budget)?,
        ('x' | 'X', Value::Bytes(bytes)) => hex(bytes, clause == 'X', budget)?,
        ('b' | 'o' | 'x' | 'X' | 'd', _) => return wrong(),
        _ => {
            let why = format!("could not parse formatting clause: unrecognized formatting clause {clause:?}");
            return Err(Error::Failed(why));
        }
    };
    out.push_str(&text);
    Ok(())
}

fn signed(n: i64, digits: String) -> String {
    if n < 0 { format!("-{digits}") } else { digits }
}

fn hex(bytes: &[u8], upper: bool, budget: &mut Budget) -> Result<String, Error> {
    budget.charge_bytes(bytes.len() * 2)?;
    Ok(bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect())
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        _ => None,
    }
}

/// With two digits of exponent at least, as C writes it.
fn exponent(n: f64, digits: usize) -> String {
    let text = format!("{n:.digits$e}");
    let Some((mantissa, power)) = text.split_once('e') else { return text };
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{mantissa}e{sign}{power:0>2}")
}

/// Any value, lists and maps as CEL writes them.
fn put_any(out: &mut String, value: &Value<'_>, budget: &mut Budget) -> Result<(), Error> {
    budget.charge(1)?;
    match value {
        Value::Null => out.push_str("null"),
        Value::List(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                put_any(out, &item, budget)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                out.push_str(&format!("{key}: "));
                put_any(out, value, budget)?;
            }
            out.push('}');
        }
        scalar => match plain(scalar) {
            Some(text) => {
                budget.charge_bytes(text.len())?;
                out.push_str(&text);
            }
            None => {
                return Error::failed(format!(
                    "error during formatting: string clause can only be used on strings, bools, bytes, ints, \
                     doubles, maps, lists, types, durations, and timestamps, was given {}",
                    scalar.type_name()
                ));
            }
        },
    }
    Ok(())
}
