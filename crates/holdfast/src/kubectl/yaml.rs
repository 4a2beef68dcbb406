//! Objects as YAML, with the keys in order.

use serde_json::{Map, Value};

/// The same value with the keys of its objects in order, as kubectl prints them.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let entries = keys.into_iter().map(|k| (k.clone(), sorted(&map[k])));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// As YAML.
pub fn yaml(value: &Value) -> anyhow::Result<String> {
    Ok(serde_yaml_ng::to_string(&sorted(value))?)
}

/// As JSON, four spaces deep, as kubectl prints it.
pub fn json(value: &Value) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(&sorted(value), &mut serializer)?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}
