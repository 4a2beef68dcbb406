//! `format`: values in a text, after `printf`, as cel-go's extension of texts does it (`ext/formatting.go`) with the
//! locale `en_US`.

use super::Answer;
use super::clauses::{self, Clause, Piece};
use super::convert::plain;
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Key, List, Value};

/// The digits behind the point of a number, where the pattern gives none.
const DIGITS: usize = 6;
const INFINITY: &str = "\u{221e}";

/// Puts values in the places of `%s`, `%d` and so on.
pub(super) fn format<'a>(pattern: &str, values: &List<'a>, budget: &mut Budget) -> Answer<'a> {
    let mut out = String::new();
    let (mut rest, mut count) = (pattern, 0);
    while let Some((piece, behind)) = clauses::next(rest).map_err(Error::Failed)? {
        rest = behind;
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause, precision) => {
                let Some(value) = values.get(count) else {
                    return Error::failed(format!("index {count} out of range"));
                };
                count += 1;
                let before = out.len();
                put(&mut out, clause, &value, precision.unwrap_or(DIGITS), budget)?;
                budget.charge_bytes(out.len() - before)?;
            }
        }
    }
    budget.charge_bytes(out.len())?;
    Ok(out.into())
}

fn put(
    out: &mut String,
    clause: Clause,
    value: &Value<'_>,
    digits: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    let refused = || Error::Failed(clause.complaint(value.type_name()));
    let text = match (clause, value) {
        (Clause::Text, Value::List(_) | Value::Map(_)) => return put_literal(out, value, budget),
        (Clause::Text, Value::Null) => "null".to_owned(),
        (Clause::Text, Value::Ip(_) | Value::Cidr(_)) => return Err(refused()),
        (Clause::Text, value) => plain(value).ok_or_else(refused)?,
        (Clause::Fixed, value) => fixed(double(value).ok_or_else(refused)?, digits),
        // cel-go makes a width of the precision.
        (Clause::Scientific, value) => {
            format!("{:>digits$}", scientific(double(value).ok_or_else(refused)?))
        }
        (Clause::Decimal, Value::Int(n)) => n.to_string(),
        (Clause::Decimal, Value::Uint(n)) => n.to_string(),
        (Clause::Binary, Value::Bool(b)) => u8::from(*b).to_string(),
        (Clause::Binary, Value::Int(n)) => signed(*n, format!("{:b}", n.unsigned_abs())),
        (Clause::Binary, Value::Uint(n)) => format!("{n:b}"),
        (Clause::Octal, Value::Int(n)) => signed(*n, format!("{:o}", n.unsigned_abs())),
        (Clause::Octal, Value::Uint(n)) => format!("{n:o}"),
        (Clause::Hex { upper: false }, Value::Int(n)) => signed(*n, format!("{:x}", n.unsigned_abs())),
        (Clause::Hex { upper: true }, Value::Int(n)) => signed(*n, format!("{:X}", n.unsigned_abs())),
        (Clause::Hex { upper: false }, Value::Uint(n)) => format!("{n:x}"),
        (Clause::Hex { upper: true }, Value::Uint(n)) => format!("{n:X}"),
        (Clause::Hex { upper }, Value::String(text)) => hex(text.as_bytes(), upper, budget)?,
        (Clause::Hex { upper }, Value::Bytes(bytes)) => hex(bytes, upper, budget)?,
        _ => return Err(refused()),
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

/// A double; those that are no number may be given by name.
fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(n) => Some(*n),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// The sign of a number; a zero has none, but what is only rounded to it has.
fn sign(n: f64) -> &'static str {
    if n < 0.0 { "-" } else { "" }
}

/// With commas between thousands.
fn fixed(n: f64, digits: usize) -> String {
    if n.is_nan() {
        return "NaN".to_owned();
    }
    let mut out = sign(n).to_owned();
    if n.is_infinite() {
        return out + INFINITY;
    }
    let text = format!("{:.digits$}", n.abs());
    let whole = text.find('.').unwrap_or(text.len());
    for (at, c) in text.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A power of ten with its exponent above the line, such as `1.500000×10⁰⁰`.
fn scientific(n: f64) -> String {
    const ABOVE: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    if !n.is_finite() {
        return fixed(n, DIGITS);
    }
    let text = format!("{:.DIGITS$e}", n.abs());
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (minus, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let above: String =
        format!("{exponent:0>2}").bytes().map(|digit| ABOVE[usize::from(digit - b'0')]).collect();
    format!("{}{mantissa}×10{minus}{above}", sign(n))
}

/// A value as it would be written in an expression: so within lists and maps.
fn put_literal(out: &mut String, value: &Value<'_>, budget: &mut Budget) -> Result<(), Error> {
    budget.charge(1)?;
    let before = out.len();
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Type(_) => {
            out.push_str(&plain(value).unwrap_or_default());
        }
        Value::Double(n) if n.is_finite() => out.push_str(&format!("{n:.DIGITS$}")),
        Value::Double(_) => out.push_str(&quoted(&plain(value).unwrap_or_default())),
        Value::String(text) => out.push_str(&quoted(text)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => out.push_str(&format!("b{}", quoted(text))),
            Err(_) => return Error::failed("error during formatting: could not convert argument to string"),
        },
        Value::Timestamp(time) => out.push_str(&format!("timestamp(\"{time}\")")),
        Value::Duration(_) => out.push_str(&format!("duration(\"{}\")", plain(value).unwrap_or_default())),
        Value::List(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                put_literal(out, &item, budget)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let written = |key: &Key| match key {
                Key::String(text) => quoted(text),
                key => key.to_string(),
            };
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (written(&key), value)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                out.push_str(key);
                out.push(':');
                put_literal(out, value, budget)?;
            }
            out.push('}');
        }
        other => {
            let why = format!("no formatting function for {}", other.type_name());
            return Error::failed(format!("error during formatting: {why}"));
        }
    }
    budget.charge_bytes(out.len() - before)
}

/// A text in quotes, as Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' | '"' => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c == ' ' || !(c.is_control() || c.is_whitespace()) => out.push(c),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_english() {
        for (number, with_two, above) in [
            (0.0, "0.00", "0.000000×10⁰⁰"),
            (-0.0, "0.00", "0.000000×10⁰⁰"),
            (-0.001, "-0.00", "-1.000000×10⁻⁰³"),
            (999.996, "1,000.00", "9.999960×10⁰²"),
            (1_234_567.0, "1,234,567.00", "1.234567×10⁰⁶"),
            (f64::NEG_INFINITY, "-∞", "-∞"),
            (f64::NAN, "NaN", "NaN"),
        ] {
            assert_eq!((fixed(number, 2).as_str(), scientific(number).as_str()), (with_two, above));
        }
    }
}
