//! Fields that a schema doesn't have are left out.
//!
//! Follows `pkg/apiserver/schema/pruning` of apiextensions-apiserver.

use serde_json::{Map, Value};
use values::{LONGEST_PATH, cut};

use super::schema::{Known, Schema};

/// Fields that every embedded object has, whatever its schema says.
const OF_OBJECTS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes unknown fields out of an object; returns the paths of the first `most`.
pub(super) fn prune(schema: &Schema, object: &mut Map<String, Value>, most: usize) -> Vec<String> {
    let mut walk = Walk { unknown: Vec::new(), most, path: String::new() };
    walk.object(Some(schema), (true, false), object);
    walk.unknown
}

/// Whether a value holds something that the schema doesn't have.
pub(super) fn has_unknown(schema: &Schema, value: &Value) -> bool {
    let mut walk = Walk { unknown: Vec::new(), most: 1, path: String::new() };
    walk.value(Some(schema), false, &mut value.clone());
    !walk.unknown.is_empty()
}

struct Walk {
    unknown: Vec<String>,
    most: usize,
    path: String,
}

impl Walk {
    /// `open`: whether the list that the value is an item of keeps what no schema has.
    fn value(&mut self, schema: Option<&Schema>, open: bool, value: &mut Value) {
        match value {
            Value::Object(object) => {
                let embedded = schema.is_some_and(|schema| schema.embedded);
                self.object(schema, (embedded, open), object);
            }
            Value::Array(list) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                // A list hands it on to its items, an object to no field.
                let open = open || schema.is_some_and(|schema| schema.open);
                if items.is_none() && open {
                    return;
                }
                let length = self.path.len();
                for (index, item) in list.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(items, open, item);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn object(
        &mut self,
        schema: Option<&Schema>,
        (embedded, open): (bool, bool),
        object: &mut Map<String, Value>,
    ) {
        let open = open || schema.is_some_and(|schema| schema.open);
        let length = self.path.len();
        object.retain(|name, value| {
            if embedded && OF_OBJECTS.contains(&name.as_str()) {
                return true;
            }
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            let kept = match schema.and_then(|schema| schema.field(name)) {
                Some(Known::Schema(field)) => {
                    self.value(Some(field), false, value);
                    true
                }
                Some(Known::Nothing) => {
                    if !open {
                        self.value(None, false, value);
                    }
                    true
                }
                None if open => true,
                None => {
                    if self.unknown.len() < self.most {
                        self.unknown.push(cut(&self.path, LONGEST_PATH).into_owned());
                    }
                    false
                }
            };
            self.path.truncate(length);
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_that_keeps_all_keeps_what_its_items_have() {
        let schema = Schema::of_resource(&json!({"type": "object", "properties": {
            "pipelines": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object",
                "properties": {"closed": {"type": "object", "properties": {"c": {"type": "integer"}}}}}},
        }}));
        let mut object = json!({"pipelines": [{"x": {"y": 1}, "closed": {"c": 1, "z": 1}}]});
        assert_eq!(prune(&schema, object.as_object_mut().unwrap(), 100), ["pipelines[0].closed.z"]);
        assert_eq!(object, json!({"pipelines": [{"x": {"y": 1}, "closed": {"c": 1}}]}));
    }

    #[test]
    fn what_the_schema_does_not_have_goes() {
        let schema = Schema::of_resource(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "integer"}}}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"closed": {"type": "object", "properties": {"c": {"type": "integer"}}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }},
        }}));
        let mut object = json!({
            "apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}, "other": 1,
            "spec": {
                "known": "x", "unknown": {"deep": 1}, "list": [{"a": 1, "z": 1}], "map": {"k": {"b": 1, "z": 2}},
                "open": {"any": {"thing": [{"x": 1}]}, "closed": {"c": 1, "z": 1}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"z": 1}, "z": 1},
            },
        });
        let unknown = prune(&schema, object.as_object_mut().unwrap(), 100);
        assert_eq!(
            unknown,
            [
                "other",
                "spec.list[0].z",
                "spec.map.k.z",
                "spec.open.closed.z",
                "spec.pod.spec.z",
                "spec.pod.z",
                "spec.unknown"
            ]
        );
        assert_eq!(
            object,
            json!({
                "apiVersion": "v1", "kind": "A", "metadata": {"name": "a"},
                "spec": {
                    "known": "x", "list": [{"a": 1}], "map": {"k": {"b": 1}},
                    "open": {"any": {"thing": [{"x": 1}]}, "closed": {"c": 1}},
                    "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
                },
            })
        );
    }
}
