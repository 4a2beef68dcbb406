//! Objects as YAML and JSON, as kubectl prints them.

use serde_json::Value;

/// As YAML.
pub fn yaml(value: &Value) -> anyhow::Result<String> {
    Ok(serde_yaml_ng::to_string(value)?)
}

/// As JSON, four spaces deep, as kubectl prints it.
pub fn json(value: &Value) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(value, &mut serializer)?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}
