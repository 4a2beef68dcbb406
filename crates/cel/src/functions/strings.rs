//! Functions of texts: places and lengths are in characters.

use super::{Answer, no_overload, patterns, print};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Text, Value};

/// A method of a text.
pub(super) fn method<'a>(
    name: &str,
    text: &Text<'a>,
    arguments: &[Value<'a>],
    budget: &mut Budget,
) -> Answer<'a> {
    budget.charge_bytes(text.len())?;
    match (name, arguments) {
        ("contains", [Value::String(part)]) => {
            budget.charge_bytes(part.len())?;
            Ok(Value::Bool(text.contains(&**part)))
        }
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(text.ends_with(&**part))),
        ("matches", [Value::String(pattern)]) => patterns::matches(text, pattern, budget),
        ("find", [Value::String(pattern)]) => patterns::find(text, pattern, budget),
        ("findAll", [Value::String(pattern)]) => patterns::find_all(text, pattern, -1, budget),
        ("findAll", [Value::String(pattern), Value::Int(most)]) => {
            patterns::find_all(text, pattern, *most, budget)
        }
        ("lowerAscii", []) => Ok(text.to_ascii_lowercase().into()),
        ("upperAscii", []) => Ok(text.to_ascii_uppercase().into()),
        ("trim", []) => Ok(text.trim().into()),
        ("charAt", [Value::Int(at)]) => char_at(text, *at),
        ("indexOf", [Value::String(part)]) => index_of(text, part, 0),
        ("indexOf", [Value::String(part), Value::Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Value::String(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Value::String(part), Value::Int(from)]) => last_index_of(text, part, Some(*from)),
        ("substring", [Value::Int(from)]) => substring(text, *from, None),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
        ("replace", [Value::String(from), Value::String(to)]) => replace(text, from, to, -1, budget),
        ("replace", [Value::String(from), Value::String(to), Value::Int(most)]) => {
            replace(text, from, to, *most, budget)
        }
        ("split", [Value::String(by)]) => split(text, by, -1, budget),
        ("split", [Value::String(by), Value::Int(most)]) => split(text, by, *most, budget),
        ("format", [Value::List(values)]) => print::format(text, values, budget),
        _ => no_overload(),
    }
}

fn out_of_range<'a>(at: i64) -> Answer<'a> {
    Error::failed(format!("index out of range: {at}"))
}

/// The place in bytes of the character at `at`; the end counts.
fn place(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(place, _)| place).chain([text.len()]).nth(at)
}

fn char_at<'a>(text: &str, at: i64) -> Answer<'a> {
    match place(text, at) {
        Some(place) => Ok(text[place..].chars().next().map(String::from).unwrap_or_default().into()),
        None => out_of_range(at),
    }
}

/// The first place of `part` from a character on. Nothing is found at once, wherever that is, and behind the end nothing is.
fn index_of<'a>(text: &str, part: &str, from: i64) -> Answer<'a> {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return out_of_range(from);
    }
    let found = place(text, from).and_then(|start| Some(start + text[start..].find(part)?));
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

/// Likewise the last one, which begins at a character at the latest.
fn last_index_of<'a>(text: &str, part: &str, from: Option<i64>) -> Answer<'a> {
    let count = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(count)));
    }
    let found = match from {
        Some(from) if from < 0 => return out_of_range(from),
        Some(from) if from >= count => None,
        None => text.rfind(part),
        Some(from) => {
            // The character at `from` may be the first of it, but none behind.
            let end = place(text, from).map_or(text.len(), |start| start + part.len()).min(text.len());
            let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
            text[..end].rfind(part)
        }
    };
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Answer<'a> {
    let Some(start) = place(text, from) else { return out_of_range(from) };
    let end = match to {
        None => text.len(),
        Some(to) => match place(text, to) {
            Some(end) => end,
            None => return out_of_range(to),
        },
    };
    match text.get(start..end) {
        Some(part) => Ok(part.into()),
        None => {
            Error::failed(format!("invalid substring range. start: {from}, end: {}", to.unwrap_or_default()))
        }
    }
}

fn replace<'a>(text: &str, from: &str, to: &str, most: i64, budget: &mut Budget) -> Answer<'a> {
    // What comes out is paid for before it is made.
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = text.matches(from).take(most).count();
    budget.charge_bytes(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(text.replacen(from, to, most).into())
}

fn split<'a>(text: &str, by: &str, most: i64, budget: &mut Budget) -> Answer<'a> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Box<dyn Iterator<Item = &str>> = match (most, by) {
        (0, _) => Box::new(std::iter::empty()),
        // Between all characters, and not before the first and behind the last.
        (most, "") => Box::new(characters(text, most)),
        (most, by) => Box::new(text.splitn(most, by)),
    };
    let mut list = Vec::new();
    for part in parts {
        budget.charge(1)?;
        list.push(part.into());
    }
    Ok(Value::list(list))
}

fn characters(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let mut made = 0;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        made += 1;
        let (part, behind) = if made == most { (rest, "") } else { rest.split_at(first.len_utf8()) };
        rest = behind;
        Some(part)
    })
}

/// A text in quotes, with what needs it escaped.
pub(super) fn quote<'a>(text: &str, budget: &mut Budget) -> Answer<'a> {
    budget.charge_bytes(text.len() * 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted.into())
}
