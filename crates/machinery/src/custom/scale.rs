//! The scale of custom objects: numbers and a selector wherever their definition says.

use serde_json::{Value, json};

use super::Custom;
use crate::faults::Faults;
use crate::object::Object;
use crate::status::Cause;

/// A value as Go prints it, and its type there.
fn in_go(value: &Value) -> (String, &'static str) {
    match value {
        Value::String(text) => (text.clone(), "string"),
        Value::Bool(truth) => (truth.to_string(), "bool"),
        Value::Array(_) => ("a list".to_owned(), "[]interface {}"),
        Value::Object(_) => ("an object".to_owned(), "map[string]interface {}"),
        other => (other.to_string(), "float64"),
    }
}

impl Custom {
    /// What an object's scale shows: the replicas asked for, those that there are, and a selector.
    pub(crate) fn read_scale(&self, object: &Object) -> Option<(i64, i64, String)> {
        let paths = self.version().scale.as_ref()?;
        let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let selector = object.pointer(&paths.selector).and_then(Value::as_str).unwrap_or_default();
        Some((count(&paths.spec), count(&paths.status), selector.to_owned()))
    }

    /// The path of the number of replicas as the definition writes it, if an object lacks it: then it has no scale that
    /// could be shown.
    pub(crate) fn missing_replicas(&self, object: &Object) -> Option<String> {
        let paths = self.version().scale.as_ref()?;
        let is_there = object.pointer(&paths.spec).is_some_and(Value::is_i64);
        (!is_there).then(|| paths.spec.replace('/', "."))
    }

    /// Gives an object the number of replicas that its scale asks for.
    pub(crate) fn write_scale(&self, object: &mut Object, replicas: i64) {
        let Some(paths) = &self.version().scale else { return };
        let mut fields = paths.spec.split('/').skip(1).peekable();
        let mut map = &mut object.0;
        while let Some(field) = fields.next() {
            if fields.peek().is_none() {
                map.insert(field.to_owned(), replicas.into());
                return;
            }
            let inner = map.entry(field).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            match inner {
                Value::Object(inner) => map = inner,
                _ => return,
            }
        }
    }

    /// The path of the number that a scale asks for in a version, as managed fields write it: none where that has no
    /// scale. Nothing if there is no such version.
    pub(crate) fn replicas_path_in(&self, api_version: &str) -> Option<Vec<String>> {
        let version = self.definition.version_of(api_version)?;
        let paths = self.definition.versions[version].scale.as_ref();
        let fields = paths.into_iter().flat_map(|paths| paths.spec.split('/').skip(1));
        Some(fields.map(|field| format!("f:{field}")).collect())
    }

    /// Numbers that no scale can show.
    pub(super) fn validate_scale(&self, object: &Object, faults: &mut Faults) {
        let Some(paths) = &self.version().scale else { return };
        for pointer in [&paths.spec, &paths.status] {
            let Some(value) = object.pointer(pointer) else { continue };
            // As the definition writes it, with its dot.
            let path = pointer.replace('/', ".");
            match value.as_i64() {
                None if !value.is_null() => {
                    let (shown, kind) = in_go(value);
                    let why = format!("{path} accessor error: {shown} is of the type {kind}, expected int64");
                    faults.push(Cause::invalid(path, &0.into(), &why));
                }
                Some(number) if number < 0 => {
                    faults.push(Cause::invalid(path, value, "should be a non-negative integer"));
                }
                Some(number) if number > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    faults.push(Cause::invalid(path, value, &why));
                }
                _ => {}
            }
        }
    }
}
