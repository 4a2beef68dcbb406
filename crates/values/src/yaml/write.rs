//! Values as YAML, in the style of go-yaml v2: what `kubectl get -o yaml` shows.

use serde_json::{Map, Value};

use super::scalar::{self, Scalar};

/// A value as a YAML document. Readers of YAML 1.1 and of 1.2 read the same value.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => put_map(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => put_list(&mut out, list, 0),
        other => {
            put_scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn put_map(out: &mut String, map: &Map<String, Value>, indent: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        put_key(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                put_line(out, indent + 2);
                put_map(out, inner, indent + 2);
            }
            // A list stands as deep as the key that it belongs to.
            Value::Array(list) if !list.is_empty() => {
                put_line(out, indent);
                put_list(out, list, indent);
            }
            other => {
                out.push(' ');
                put_scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn put_list(out: &mut String, list: &[Value], indent: usize) {
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => put_map(out, map, indent + 2),
            Value::Array(list) if !list.is_empty() => put_list(out, list, indent + 2),
            other => {
                put_scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn put_line(out: &mut String, indent: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// YAML limits a key without a question mark before it to 1,024 characters. Ours are written without one, however
/// long they are: our own reader takes them.
fn put_key(out: &mut String, key: &str) {
    if is_plain(key) { out.push_str(key) } else { put_quoted(out, key) }
}

fn put_scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        Value::String(text) if text.contains('\n') && is_block(text) => put_block(out, text, indent),
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) => put_quoted(out, text),
    }
}

/// Whether a text reads as itself without quotes, in YAML 1.1 and in 1.2.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let starts = first.is_alphanumeric()
        || matches!(first, '/' | '_' | '.' | '$' | '(' | '+' | ';' | '^' | '<' | '\\' | '-');
    let dashes = text == "-" || text.starts_with("--") || text.starts_with("- ");
    starts
        && !dashes
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| is_printable(c) && !matches!(c, '\n' | '\t'))
        && !text.contains([',', '[', ']', '{', '}'])
        && scalar::plain(text) == Scalar::Text(text.to_owned())
        // Times of day were numbers on base 60 once, and dates are times to others.
        && !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'_' | b'-' | b'+'))
        && !(text.len() >= 8 && text.as_bytes()[0].is_ascii_digit() && text.as_bytes()[4..].starts_with(b"-"))
        && !matches!(text, "=" | "<<")
}

fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// Whether a text can be written line by line: no line may end in a blank, nor the first begin with one.
fn is_block(text: &str) -> bool {
    !text.starts_with([' ', '\t', '\n'])
        && text.chars().all(is_printable)
        && text.split('\n').all(|line| !line.ends_with([' ', '\t']))
        && text.lines().any(|line| !line.is_empty())
}

fn put_block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    // All line ends but the last, which the caller writes.
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
}

fn put_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
}
