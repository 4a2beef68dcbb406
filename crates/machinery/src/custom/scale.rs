//! The scale of custom objects: numbers and a selector wherever their definition says.

use serde_json::{Value, json};

use super::Custom;
use crate::faults::Faults;
use crate::go_value::{printed, type_of};
use crate::object::Object;
use crate::status::Cause;

/// What stands at the end of a path, with upstream's words where something on the way is no map (`NestedFieldNoCopy`).
fn nested<'a>(object: &'a Object, pointer: &str) -> Result<Option<&'a Value>, String> {
    let mut fields = pointer.split('/').skip(1);
    let Some(mut value) = fields.next().and_then(|first| object.0.get(first)) else { return Ok(None) };
    let mut end = pointer[1..].find('/').map_or(pointer.len(), |at| at + 1);
    for field in fields {
        match value {
            Value::Null => return Ok(None),
            Value::Object(map) => match map.get(field) {
                Some(inner) => value = inner,
                None => return Ok(None),
            },
            other => return Err(no_access(&pointer[..end], other, "map[string]interface{}")),
        }
        end += 1 + field.len();
    }
    Ok(Some(value))
}

fn no_access(pointer: &str, value: &Value, expected: &str) -> String {
    let path = pointer.replace('/', ".");
    format!(
        "{path} accessor error: {} is of the type {}, expected {expected}",
        printed(value),
        type_of(value)
    )
}

/// Why what stands at `pointer` is no number of replicas.
fn replicas_fault(object: &Object, pointer: &str) -> Option<Cause> {
    // As the definition writes it, with its dot.
    let path = pointer.replace('/', ".");
    let number = match nested(object, pointer) {
        Ok(None) => return None,
        Ok(Some(value)) => value.as_i64().ok_or_else(|| no_access(pointer, value, "int64")),
        Err(why) => Err(why),
    };
    match number {
        Err(why) => Some(Cause::invalid(path, &0.into(), &why)),
        Ok(number) if number < 0 => {
            Some(Cause::invalid(path, &number.into(), "should be a non-negative integer"))
        }
        Ok(number) if number > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            Some(Cause::invalid(path, &number.into(), &why))
        }
        Ok(_) => None,
    }
}

/// Why what stands at `pointer` is no selector's text.
fn selector_fault(object: &Object, pointer: &str) -> Option<Cause> {
    let why = match nested(object, pointer) {
        Ok(None | Some(Value::String(_))) => return None,
        Ok(Some(value)) => no_access(pointer, value, "string"),
        Err(why) => why,
    };
    Some(Cause::invalid(pointer.replace('/', "."), &"".into(), &why))
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

    /// Numbers and selectors that no scale can show.
    pub(super) fn validate_scale(&self, object: &Object, faults: &mut Faults) {
        let Some(paths) = &self.version().scale else { return };
        faults.extend([&paths.spec, &paths.status].into_iter().filter_map(|at| replicas_fault(object, at)));
        if !paths.selector.is_empty() {
            faults.extend(selector_fault(object, &paths.selector));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scale_cannot_show_is_told_as_go_prints_it() {
        for (spec, why) in [
            (json!({"n": "x"}), ".spec.n accessor error: x is of the type string, expected int64"),
            (json!({"n": [1]}), ".spec.n accessor error: [1] is of the type []interface {}, expected int64"),
            (
                json!({"n": {}}),
                ".spec.n accessor error: map[] is of the type map[string]interface {}, expected int64",
            ),
            (json!({"n": -7.5}), ".spec.n accessor error: -7.5 is of the type float64, expected int64"),
            (json!({"n": null}), ".spec.n accessor error: <nil> is of the type <nil>, expected int64"),
            (json!("x"), ".spec accessor error: x is of the type string, expected map[string]interface{}"),
        ] {
            let object = Object::from_value(json!({"spec": spec})).unwrap();
            let fault = replicas_fault(&object, "/spec/n").unwrap();
            assert_eq!((&*fault.field, &*fault.message), (".spec.n", &*format!("Invalid value: 0: {why}")));
        }
        for spec in [json!({"n": 3}), json!({"m": 3}), json!({}), Value::Null] {
            let object = Object::from_value(json!({"spec": spec})).unwrap();
            assert!(replicas_fault(&object, "/spec/n").is_none());
            assert!(selector_fault(&object, "/spec/of/n").is_none());
        }
        let object = Object::from_value(json!({"status": {"selector": 5}})).unwrap();
        let fault = selector_fault(&object, "/status/selector").unwrap();
        let why = ".status.selector accessor error: 5 is of the type int64, expected string";
        assert_eq!(fault.message, format!("Invalid value: \"\": {why}"));
    }
}
