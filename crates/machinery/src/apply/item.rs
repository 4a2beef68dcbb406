//! How the items of lists are identified.

use serde_json::{Number, Value};

use super::types::Type;

/// The element of a list's item: by its keys, or by its value where the list is a set.
///
/// # Errors
/// In upstream's words, why the item has no element.
pub(super) fn item_element(keys: &[Box<str>], item_type: Type<'_>, item: &Value) -> Result<Box<str>, String> {
    if keys.is_empty() {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(value_element(scalar)),
        };
    }
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut found = keys.iter().filter_map(|key| {
        let value = fields.get(&**key).or_else(|| item_type.key_default(key))?;
        Some((&**key, value))
    });
    if let Some(first) = found.next() {
        return Ok(key_element([first].into_iter().chain(found)));
    }
    Err(format!(
        "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default \
         values for any key fields)"
    ))
}

/// `k:{"name":"web"}`, the names in order.
pub(super) fn key_element<'a>(keys: impl Iterator<Item = (&'a str, &'a Value)>) -> Box<str> {
    let mut keys: Vec<(&str, &Value)> = keys.collect();
    keys.sort_unstable_by_key(|(name, _)| *name);
    let mut text = String::with_capacity(32);
    text.push_str("k:{");
    for (index, (name, value)) in keys.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_text(&mut text, name);
        text.push(':');
        write_value(&mut text, value);
    }
    text.push('}');
    text.into()
}

/// `v:"a"`.
pub(super) fn value_element(value: &Value) -> Box<str> {
    let mut text = String::from("v:");
    write_value(&mut text, value);
    text.into()
}

fn write_text(out: &mut String, text: &str) {
    let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        // 80.0 and 80 are one number.
        Value::Number(number) => match whole(number) {
            Some(whole) => out.push_str(&whole.to_string()),
            None => out.push_str(&number.to_string()),
        },
        other => out.push_str(&other.to_string()),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "only numbers that are whole and small")]
fn whole(number: &Number) -> Option<i64> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
}
