//! What an applied object must be before it can be merged: fields that its type has, lists whose items have
//! elements of their own.

use std::collections::HashSet;

use serde_json::Value;

use super::fields_v1::path_text;
use super::item::item_element;
use super::types::{Form, Type};
use crate::go_value::{printed, printed_as_code, type_of};

/// The most faults that are reported: a person mends no more at a time, and an object can have a million.
const MOST: usize = 20;

/// Why `value` can't be of the type, in upstream's words.
pub(super) fn faults(of: Type<'_>, value: &Value) -> Vec<String> {
    let mut check = Check { path: Vec::new(), faults: Vec::new() };
    check.value(of, value);
    check.faults
}

struct Check {
    path: Vec<Box<str>>,
    faults: Vec<String>,
}

impl Check {
    fn fault(&mut self, why: &str) {
        if self.faults.len() < MOST {
            let path: Vec<&str> = self.path.iter().map(|element| &**element).collect();
            self.faults.push(format!("{}: {why}", path_text(&path)));
        }
    }

    fn value(&mut self, of: Type<'_>, value: &Value) {
        if value.is_null() {
            return;
        }
        match (of.form(), value) {
            (Form::List { keys, items }, Value::Array(list)) => self.list(keys, items, list),
            (Form::Map(fields), Value::Object(map)) => {
                for (name, value) in map {
                    self.path.push(super::compare::field_element(name));
                    if fields.allows(name) {
                        self.value(fields.of(name), value);
                    } else {
                        self.fault("field not declared in schema");
                    }
                    self.path.pop();
                }
            }
            (Form::List { .. }, other) => self.fault(&format!("expected list, got &{{{}}}", printed(other))),
            (Form::Map(_), other) => self.fault(&format!("expected map, got &{{{}}}", printed(other))),
            (Form::Text, other) if !other.is_string() => {
                let value = printed_as_code(other);
                self.fault(&format!("expected string, got &value.valueUnstructured{{Value:{value}}}"));
            }
            (Form::Number, other) if !other.is_number() => {
                self.fault(&format!("expected numeric (int or float), got {}", type_of(other)));
            }
            (Form::Truth, other) if !other.is_boolean() => {
                self.fault(&format!("expected boolean, got &{{{}}}", printed(other)));
            }
            (Form::Scalar, other @ (Value::Array(_) | Value::Object(_))) => {
                self.fault(&format!("expected any scalar, got &{{{}}}", printed(other)));
            }
            _ => {}
        }
    }

    /// `keys` is how items are told apart; nothing where the list is replaced as a whole.
    fn list(&mut self, keys: Option<&[Box<str>]>, items: Type<'_>, list: &[Value]) {
        let mut seen = HashSet::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let element = match keys.map(|keys| item_element(keys, items, item)) {
                None => format!("i:{index}").into(),
                Some(Ok(element)) => element,
                Some(Err(why)) => {
                    self.fault(&format!("element {index}: {why}"));
                    continue;
                }
            };
            if keys.is_some() && !seen.insert(element.clone()) {
                self.fault(&format!("duplicate entries for key {}", path_text(&[&element])));
                continue;
            }
            self.path.push(element);
            self.value(items, item);
            self.path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::structural::StructuralType;
    use super::super::types::Typing;
    use super::*;

    #[test]
    fn what_is_replaced_as_a_whole_is_looked_into_too() {
        let text = || json!({"type": "string"});
        let of_type = StructuralType::of_resource(
            &json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": text()}}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text()}},
                "text": text(), "time": {"type": "string", "format": "date-time"}, "number": {"type": "integer"},
                "truth": {"type": "boolean"}, "either": {"x-kubernetes-int-or-string": true},
                "map": {"type": "object", "additionalProperties": text()},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "free": {"type": "object", "x-kubernetes-map-type": "atomic", "x-kubernetes-preserve-unknown-fields": true},
                "below": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties":
                    {"list": {"type": "array", "items": {"type": "object", "properties": {"a": text()}}}}},
            }}}}),
        );
        let root = Typing::Structural(&of_type).root();
        for (spec, expected) in [
            (json!({"list": [{"a": "x", "z": 1}]}), ".spec.list[0].z: field not declared in schema"),
            (json!({"whole": {"z": 1}}), ".spec.whole.z: field not declared in schema"),
            (
                json!({"list": [{"a": "x"}, {"a": 5}]}),
                ".spec.list[1].a: expected string, got &value.valueUnstructured{Value:5}",
            ),
            (json!({"text": true}), ".spec.text: expected string, got &value.valueUnstructured{Value:true}"),
            (json!({"list": "x"}), ".spec.list: expected list, got &{x}"),
            (json!({"map": [1, "b"]}), ".spec.map: expected map, got &{[1 b]}"),
            (json!({"number": "1"}), ".spec.number: expected numeric (int or float), got string"),
            (json!({"truth": {"a": 1}}), ".spec.truth: expected boolean, got &{map[a:1]}"),
            (json!({"either": []}), ".spec.either: expected any scalar, got &{[]}"),
        ] {
            assert_eq!(faults(root, &json!({"spec": spec})), [expected]);
        }
        let fits = json!({"list": [{"a": null}, {}], "text": null, "time": 5, "either": 1, "map": {"a": "b"},
            "open": {"x": [{"y": 1}]}, "free": {"x": {"y": [1]}}, "below": {"list": [{"z": 1}]}});
        assert_eq!(faults(root, &json!({"spec": fits})), [""; 0]);
    }
}
