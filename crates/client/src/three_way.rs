//! The patch of `kubectl apply`: what the manifest changes, computed from three sides.
//!
//! Following kubectl's client-side apply (`k8s.io/apimachinery/pkg/util/strategicpatch`,
//! `CreateThreeWayMergePatch`): fields of the new manifest that differ from the live object are set; fields
//! that the manifest applied last had and the new one has no more are removed; everything that others wrote
//! stays. With a schema, lists merge by their keys; without, the patch is a JSON merge patch and lists are whole.

use crate::schema::Schema;
use serde_json::{Map, Value, json};

/// The patch that brings `live` to what `new` says, given what `last` said; an empty object when nothing is to
/// be done.
pub(crate) fn patch(last: &Value, new: &Value, live: &Value, schema: Option<Schema<'_>>) -> Value {
    let object = |v: &Value| v.as_object().cloned().unwrap_or_default();
    Value::Object(maps(&object(last), &object(new), &object(live), schema))
}

fn maps(
    last: &Map<String, Value>,
    new: &Map<String, Value>,
    live: &Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, wanted) in new {
        let field = schema.and_then(|s| s.field(name));
        // A null in a manifest means: not there.
        if wanted.is_null() {
            if live.get(name).is_some_and(|v| !v.is_null()) {
                patch.insert(name.clone(), Value::Null);
            }
            continue;
        }
        match (wanted, live.get(name)) {
            (_, None | Some(Value::Null)) => {
                patch.insert(name.clone(), wanted.clone());
            }
            (Value::Object(wanted), Some(Value::Object(present))) => {
                if field.is_some_and(Schema::replaces) {
                    if wanted != present {
                        let mut whole = wanted.clone();
                        whole.insert("$patch".into(), json!("replace"));
                        patch.insert(name.clone(), Value::Object(whole));
                    }
                    continue;
                }
                let before = last.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
                let mut inner = maps(&before, wanted, present, field);
                if !inner.is_empty() {
                    if field.is_some_and(Schema::retains_keys) {
                        inner.insert("$retainKeys".into(), wanted.keys().cloned().collect());
                    }
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted_items), Some(Value::Array(present))) => match field.filter(|f| f.merges()) {
                None if wanted_items == present => {}
                None => {
                    patch.insert(name.clone(), wanted.clone());
                }
                Some(field) => {
                    let before =
                        last.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                    lists(name, before, wanted_items, present, field, &mut patch);
                }
            },
            (wanted, Some(present)) if same(wanted, present) => {}
            (wanted, Some(_)) => {
                patch.insert(name.clone(), wanted.clone());
            }
        }
    }
    for name in last.keys() {
        if !new.contains_key(name) && live.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// Equal, with 1 and 1.0 the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

/// The patch of a list that merges: by key where its items are objects, by value where they are not.
fn lists(
    name: &str,
    last: &[Value],
    new: &[Value],
    live: &[Value],
    field: Schema<'_>,
    patch: &mut Map<String, Value>,
) {
    let Some(key) = field.merge_key() else {
        let added: Vec<Value> = new.iter().filter(|v| !live.contains(v)).cloned().collect();
        let removed: Vec<Value> =
            last.iter().filter(|v| !new.contains(v) && live.contains(v)).cloned().collect();
        if !added.is_empty() || !removed.is_empty() {
            patch.insert(format!("$setElementOrder/{name}"), Value::Array(new.to_vec()));
        }
        if !removed.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{name}"), Value::Array(removed));
        }
        if !added.is_empty() {
            patch.insert(name.to_owned(), Value::Array(added));
        }
        return;
    };
    let find = |list: &[Value], id: Option<&Value>| -> Option<Map<String, Value>> {
        let id = id?;
        let found = list.iter().find(|item| item.get(key).is_some_and(|k| same(k, id)))?;
        found.as_object().cloned()
    };
    let mut items = Vec::new();
    for wanted in new {
        let id = wanted.get(key);
        let Some(present) = find(live, id) else {
            items.push(wanted.clone());
            continue;
        };
        let before = find(last, id).unwrap_or_default();
        let (Some(wanted), Some(id)) = (wanted.as_object(), id) else { continue };
        let mut inner = maps(&before, wanted, &present, field.item());
        if !inner.is_empty() {
            if field.retains_keys() {
                inner.insert("$retainKeys".into(), wanted.keys().cloned().collect());
            }
            inner.insert(key.to_owned(), id.clone());
            items.push(Value::Object(inner));
        }
    }
    for gone in last {
        let id = gone.get(key);
        if let Some(id) = id
            && find(new, Some(id)).is_none()
            && find(live, Some(id)).is_some()
        {
            items.push(json!({"$patch": "delete", key: id}));
        }
    }
    if !items.is_empty() {
        let order = new.iter().filter_map(|item| Some(json!({key: item.get(key)?})));
        patch.insert(format!("$setElementOrder/{name}"), order.collect());
        patch.insert(name.to_owned(), Value::Array(items));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use crate::schema::Schemas;

    fn schemas() -> Schemas {
        Schemas::new(json!({"components": {"schemas": {
            "io.k8s.api.x.v1.Thing": {
                "x-kubernetes-group-version-kind": [{"group": "x", "version": "v1", "kind": "Thing"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}}}},
            "Spec": {"properties": {
                "containers": {"type": "array", "items": {"$ref": "#/components/schemas/Container"},
                    "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"},
                "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge"},
                "strategy": {"x-kubernetes-patch-strategy": "retainKeys"}}},
            "Container": {"properties": {"args": {"type": "array"}}}}}}))
    }

    fn thing() -> Resource {
        Resource {
            group: "x".into(),
            version: "v1".into(),
            plural: "things".into(),
            singular: "thing".into(),
            kind: "Thing".into(),
            namespaced: true,
            short_names: vec![],
            categories: vec![],
        }
    }

    #[test]
    fn without_a_schema_it_is_a_merge_patch() {
        for (last, new, live, expected) in [
            (json!({"a": 1}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({})),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 1, "b": 2}), json!({"a": 2})),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({"b": null})),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1}), json!({})),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {}}),
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null}}),
            ),
            (json!({}), json!({"a": [1, 2]}), json!({"a": [1]}), json!({"a": [1, 2]})),
            (json!({}), json!({"a": {"b": 1}}), json!({"a": 1}), json!({"a": {"b": 1}})),
            (json!({}), json!({"a": null}), json!({"a": 1}), json!({"a": null})),
            (json!({}), json!({"a": null}), json!({}), json!({})),
            (json!({}), json!({"a": 1}), json!({"a": 1.0}), json!({})),
            (Value::Null, json!({"a": 1}), json!({"b": 1}), json!({"a": 1})),
        ] {
            assert_eq!(patch(&last, &new, &live, None), expected, "{last} -> {new} over {live}");
        }
    }

    #[test]
    fn with_a_schema_lists_merge() {
        let schemas = schemas();
        let thing = thing();
        let schema = schemas.of(&thing);
        let spec = |v: Value| json!({ "spec": v });
        for (last, new, live, expected) in [
            // Others' container stays, a default in ours too.
            (
                json!({"containers": [{"name": "a", "image": "1"}]}),
                json!({"containers": [{"name": "a", "image": "2"}]}),
                json!({"containers": [{"name": "s", "image": "x"}, {"name": "a", "image": "1", "pull": "Always"}]}),
                json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"image": "2", "name": "a"}]}),
            ),
            // Ours of last time goes, a new one comes.
            (
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"name": "b"}]}),
                json!({"containers": [{"name": "a"}, {"name": "s"}]}),
                json!({"$setElementOrder/containers": [{"name": "b"}],
                       "containers": [{"name": "b"}, {"$patch": "delete", "name": "a"}]}),
            ),
            // Nothing to do.
            (
                json!({"containers": [{"name": "a", "args": ["x"]}]}),
                json!({"containers": [{"name": "a", "args": ["x"]}]}),
                json!({"containers": [{"name": "a", "args": ["x"], "pull": "Always"}], "replicas": 1}),
                json!(null),
            ),
            // A list within, without a strategy, is whole.
            (
                json!({}),
                json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
                json!({"containers": [{"name": "a", "args": ["x"]}]}),
                json!({"$setElementOrder/containers": [{"name": "a"}],
                       "containers": [{"args": ["x", "y"], "name": "a"}]}),
            ),
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"finalizers": ["b", "c"]}),
                json!({"finalizers": ["a", "b", "z"]}),
                json!({"$setElementOrder/finalizers": ["b", "c"],
                       "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}),
            ),
            (
                json!({"strategy": {"type": "Rolling", "rolling": {"max": 1}}}),
                json!({"strategy": {"type": "Recreate"}}),
                json!({"strategy": {"type": "Rolling", "rolling": {"max": 1}}}),
                json!({"strategy": {"type": "Recreate", "rolling": null, "$retainKeys": ["type"]}}),
            ),
        ] {
            let made = patch(&spec(last.clone()), &spec(new.clone()), &spec(live.clone()), schema);
            let expected = if expected.is_null() { json!({}) } else { spec(expected) };
            assert_eq!(made, expected, "{last} -> {new} over {live}");
        }
    }

    #[test]
    fn custom_resources_have_no_strategy() {
        let document = json!({"components": {"schemas": {"com.example.v1.Thing": {
            "x-kubernetes-group-version-kind": [{"group": "x", "version": "v1", "kind": "Thing"}]}}}});
        assert!(Schemas::new(document).of(&thing()).is_none());
    }
}
