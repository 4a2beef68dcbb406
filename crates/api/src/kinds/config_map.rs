//! `ConfigMap`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

pub(crate) struct ConfigMap;

/// The data of a ConfigMap or a Secret together, in bytes.
pub(crate) const MOST_DATA: usize = 1024 * 1024;

impl Rules for ConfigMap {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn sees_empties(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let size =
            validate_keys(object, "data", faults) + validate_keys(object, "binaryData", faults) / 4 * 3;
        let data = object.0.get("data").and_then(Value::as_object);
        let binary = object.0.get("binaryData").and_then(Value::as_object);
        if let (Some(data), Some(binary)) = (data, binary) {
            for key in binary.keys().filter(|key| data.contains_key(key.as_str())) {
                let value = Value::from(key.as_str());
                faults.push(Cause::invalid(
                    format!("data[{key}]"),
                    &value,
                    "duplicate of key present in binaryData",
                ));
            }
        }
        if size > MOST_DATA {
            faults.push(Cause::too_long("", MOST_DATA));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validate_immutable(object, old, &["data", "binaryData"], faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Data"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let count = |field| object.0.get(field).and_then(Value::as_object).map_or(0, |map| map.len());
        vec![object.name().into(), (count("data") + count("binaryData")).into(), age(object, now)]
    }
}

/// Faults of the keys of `field`; how many bytes its values have.
pub(crate) fn validate_keys(object: &Object, field: &str, faults: &mut Faults) -> usize {
    let mut size = 0;
    for (key, value) in object.0.get(field).and_then(Value::as_object).into_iter().flatten() {
        size += value.as_str().map_or(0, str::len);
        let fits = !key.is_empty()
            && key.len() <= 253
            && key != "."
            && !key.starts_with("..")
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            let why = "a key must be at most 253 letters, digits, '-', '_' or '.', and no path";
            faults.push(Cause::invalid(format!("{field}[{key}]"), &Value::from(key.as_str()), why));
        }
    }
    size
}

/// Faults of a change of what `immutable: true` protects.
pub(crate) fn validate_immutable(object: &Object, old: &Object, fields: &[&str], faults: &mut Faults) {
    let is_true = |object: &Object| object.0.get("immutable") == Some(&Value::Bool(true));
    if !is_true(old) {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if !is_true(object) {
        faults.push(Cause::forbidden("immutable", why));
    }
    for field in fields.iter().filter(|field| object.0.get(**field) != old.0.get(**field)) {
        faults.push(Cause::forbidden(*field, why));
    }
}
