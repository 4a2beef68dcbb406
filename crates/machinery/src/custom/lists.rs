//! Lists whose items must differ: sets by their values, maps by their keys.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::object::{enter, enter_item};
use super::schema::{Known, ListType, Schema};
use crate::faults::Faults;
use crate::status::Cause;

/// Adds `FieldValueDuplicate` for every item that stands in its list again: the first time that it does.
pub(super) fn validate(schema: &Schema, value: &Value, path: &str, faults: &mut Faults) {
    validate_at(schema, value, &mut path.to_owned(), faults);
}

fn validate_at(schema: &Schema, value: &Value, path: &mut String, faults: &mut Faults) {
    match value {
        Value::Object(object) => {
            for (name, value) in object.iter().filter(|(_, value)| value.is_object() || value.is_array()) {
                if let Some(Known::Schema(field)) = schema.field(name) {
                    let length = enter(path, name);
                    validate_at(field, value, path, faults);
                    path.truncate(length);
                }
            }
        }
        Value::Array(list) => {
            duplicates(schema, list, path, faults);
            let Some(items) = &schema.items else { return };
            for (index, item) in
                list.iter().enumerate().filter(|(_, item)| item.is_object() || item.is_array())
            {
                let length = enter_item(path, index);
                validate_at(items, item, path, faults);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn duplicates(schema: &Schema, list: &[Value], path: &str, faults: &mut Faults) {
    let identity: Box<dyn Fn(&Value) -> Value> = match &schema.list {
        ListType::Atomic => return,
        ListType::Set => Box::new(Value::clone),
        ListType::Map(keys) => Box::new(|item: &Value| {
            let keys = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(keys.collect::<Map<_, _>>())
        }),
    };
    let odd = list.iter().position(|item| !item.is_object() && !item.is_null());
    if let (ListType::Map(_), Some(index)) = (&schema.list, odd) {
        let why = "must be an object for an array of list-type map";
        faults.push(Cause::invalid(format!("{path}[{index}]"), &list[index], why));
        return;
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in list.iter().enumerate() {
        let identity = identity(item);
        let times = seen.entry(identity.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            faults.push(Cause::duplicate(format!("{path}[{index}]"), &identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_of_sets_and_maps_stand_there_once() {
        let schema = Schema::of_resource(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"},
                    "inner": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}}}},
            "any": {"type": "array", "items": {"type": "string"}},
        }}));
        let object = json!({
            "set": ["x", "y", "x", "x"], "any": ["x", "x"],
            "map": [{"a": "x", "b": 1}, {"b": 1, "a": "x", "inner": [1, 1]}, {"a": "x"}],
        });
        let mut faults = Faults::default();
        validate(&schema, &object, "spec", &mut faults);
        let fields: Vec<&str> = faults.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.map[1]", "spec.map[1].inner[1]", "spec.set[2]"]);
    }
}
