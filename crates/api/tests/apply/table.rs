use machinery::{
    FieldManager, Object, StructuralType, Typing, managed_of_object, managed_of_scale, manager_of_user_agent,
};
use serde_json::{Value, json};

use super::{NOW, apply, deployment, fields, manager};

fn containers(list: Value) -> Object {
    deployment(&json!({"template": {"spec": {"containers": list}}}))
}

fn entries(object: &Object) -> Vec<(String, String)> {
    let list = object.meta("managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter().map(|entry| (text(&entry["manager"]), text(&entry["operation"]))).collect()
}

#[test]
fn an_item_goes_with_its_last_applier_and_with_what_the_server_put_in() {
    let mut live = apply(
        manager("one"),
        None,
        &containers(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])),
        false,
    )
    .unwrap();
    machinery::set_defaults(super::deployments(), &mut live).unwrap();
    let left =
        apply(manager("one"), Some(&live), &containers(json!([{"name": "a", "image": "i"}])), false).unwrap();
    let list = left.pointer("/spec/template/spec/containers").unwrap().as_array().unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["imagePullPolicy"], "Always", "the default of what stays is kept");
}

#[test]
fn a_shared_field_stays_with_who_still_wants_it() {
    let patch = deployment(&json!({"replicas": 2, "paused": true}));
    let live = apply(manager("one"), None, &patch, false).unwrap();
    let live = apply(manager("two"), Some(&live), &deployment(&json!({"replicas": 2})), false).unwrap();
    assert_eq!(fields(&live, "two"), json!({"f:spec": {"f:replicas": {}}}));
    let live = apply(manager("one"), Some(&live), &deployment(&json!({"paused": true})), false).unwrap();
    assert_eq!(live.pointer("/spec/replicas"), Some(&json!(2)));
    assert_eq!(fields(&live, "one"), json!({"f:spec": {"f:paused": {}}}));
    // The other alone may now change it.
    let live = apply(manager("two"), Some(&live), &deployment(&json!({"replicas": 3})), false).unwrap();
    assert_eq!(live.pointer("/spec/replicas"), Some(&json!(3)));
}

#[test]
fn an_update_takes_what_it_changes() {
    let live =
        apply(manager("one"), None, &deployment(&json!({"replicas": 2, "paused": true})), false).unwrap();
    let mut new = deployment(&json!({"replicas": 5}));
    manager("edit").update(Some(&live), &mut new).unwrap();
    assert_eq!(fields(&new, "one"), Value::Null, "changed the one, took away the other");
    assert_eq!(fields(&new, "edit"), json!({"f:spec": {"f:replicas": {}}}));
    // What didn't change keeps its owners, and its time.
    let later = FieldManager { now: "2026-03-03T00:00:00Z", ..manager("edit") };
    let mut same = new.clone();
    same.remove_meta("managedFields");
    later.update(Some(&new), &mut same).unwrap();
    assert_eq!(same, new);
}

#[test]
fn conflicts_name_manager_and_field() {
    let live = apply(manager("one"), None, &containers(json!([{"name": "a", "image": "i"}])), false).unwrap();
    let mut new = live.clone();
    new.0["spec"]["replicas"] = json!(4);
    manager("scaler").update(Some(&live), &mut new).unwrap();
    let mut patch = containers(json!([{"name": "a", "image": "j"}]));
    patch.0["spec"]["replicas"] = json!(1);
    let status = apply(manager("two"), Some(&new), &patch, false).unwrap_err();
    let found: Vec<_> =
        status.details.unwrap().causes.into_iter().map(|c| (c.reason, c.message, c.field)).collect();
    let cause =
        |message: &str, field: &str| ("FieldManagerConflict".to_owned(), message.into(), field.into());
    assert_eq!(
        found,
        [
            cause("conflict with \"one\"", ".spec.template.spec.containers[name=\"a\"].image"),
            cause("conflict with \"scaler\" using apps/v1", ".spec.replicas"),
        ]
    );
    assert!(status.message.starts_with("Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec"));
}

#[test]
fn what_cannot_be_typed_is_told_with_its_path() {
    for (spec, expected) in [
        (json!({"nonsense": 1}), ".spec.nonsense: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"template": 1}), ".spec.template: expected map, got &{1}"),
        (
            json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
    ] {
        let status = apply(manager("m"), None, &deployment(&spec), false).unwrap_err();
        assert_eq!(status.code, 500);
        assert!(status.message.ends_with(expected), "{}", status.message);
    }
}

#[test]
fn the_first_apply_finds_an_owner_for_what_was_there() {
    let live = deployment(&json!({"replicas": 2, "paused": true}));
    let status = apply(manager("m"), Some(&live), &deployment(&json!({"replicas": 3})), false).unwrap_err();
    assert!(status.message.contains("\"before-first-apply\" using apps/v1"), "{}", status.message);
    let live = apply(manager("m"), Some(&live), &deployment(&json!({"replicas": 3})), true).unwrap();
    assert_eq!(fields(&live, "before-first-apply"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn kubectl_takes_over_what_it_applied_by_itself() {
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 2, "minReadySeconds": 5}});
    let mut live = deployment(&json!({"replicas": 2, "minReadySeconds": 9}));
    live.set_meta(
        "annotations",
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()}),
    );
    manager("kubectl-client-side-apply").update(None, &mut live).unwrap();
    let patch = deployment(&json!({"replicas": 3}));
    let merged = apply(manager("kubectl"), Some(&live), &patch, false).unwrap();
    assert_eq!(merged.pointer("/spec/replicas"), Some(&json!(3)));
    let annotations = merged.meta("annotations").unwrap();
    let kept = annotations["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(kept).unwrap(), patch.into_value(), "kept up for the way back");
    // What somebody changed since isn't kubectl's.
    let patch = deployment(&json!({"minReadySeconds": 5}));
    assert_eq!(apply(manager("kubectl"), Some(&live), &patch, false).unwrap_err().code, 409);
    // And for other appliers nothing is.
    let patch = deployment(&json!({"replicas": 3}));
    assert_eq!(apply(manager("other"), Some(&live), &patch, false).unwrap_err().code, 409);
}

#[test]
fn old_updaters_become_one() {
    let mut live = deployment(&json!({}));
    live.set_meta("annotations", json!({"start": "x"}));
    manager("start").update(None, &mut live).unwrap();
    for day in 10..25 {
        let (name, now) = (format!("m{day}"), format!("2026-01-{day}T00:00:00Z"));
        let mut new = live.clone();
        new.0["metadata"]["annotations"][&name] = json!("x");
        FieldManager { now: &now, ..manager(&name) }.update(Some(&live), &mut new).unwrap();
        live = new;
    }
    let entries = entries(&live);
    assert_eq!(entries.len(), 10, "{entries:?}");
    assert_eq!(entries[0].0, "ancient-changes");
    let ancient = fields(&live, "ancient-changes");
    assert!(ancient["f:metadata"]["f:annotations"]["f:m10"].is_object(), "{ancient}");
    assert_eq!(entries[9].0, "m24");
}

#[test]
fn managed_fields_are_the_clients_to_set_and_to_take_away() {
    let live = apply(manager("one"), None, &deployment(&json!({"replicas": 2})), false).unwrap();
    let with = |managed: Value| {
        let mut new = live.clone();
        new.set_meta("managedFields", managed);
        manager("edit").update(Some(&live), &mut new).unwrap();
        new
    };
    assert_eq!(with(json!([{}])).meta("managedFields"), None, "reset");
    assert_eq!(with(json!([])), live, "an empty list is nobody's wish");
    assert_eq!(with(json!([{"manager": "x"}])), live, "nonsense");
    let other = json!([{"manager": "other", "operation": "Update", "apiVersion": "apps/v1", "time": NOW,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    assert_eq!(with(other.clone()).meta("managedFields"), Some(&other));

    // Nothing is recorded any more, until somebody applies.
    let reset = with(json!([{}]));
    let mut new = reset.clone();
    new.0["spec"]["replicas"] = json!(4);
    manager("edit").update(Some(&reset), &mut new).unwrap();
    assert_eq!(new.meta("managedFields"), None);
    // Not through a subresource.
    let mut new = live.clone();
    new.set_meta("managedFields", json!([{}]));
    FieldManager { subresource: "status", ..manager("edit") }.update(Some(&live), &mut new).unwrap();
    assert_eq!(new, live);
}

#[test]
fn a_status_has_owners_of_its_own() {
    let mut live = apply(manager("one"), None, &deployment(&json!({"replicas": 2})), false).unwrap();
    machinery::set_defaults(super::deployments(), &mut live).unwrap();
    let mut new = live.clone();
    new.0.insert("status".into(), json!({"replicas": 2}));
    let mut through_main = new.clone();
    manager("c").update(Some(&live), &mut through_main).unwrap();
    assert_eq!(fields(&through_main, "c"), Value::Null);
    FieldManager { subresource: "status", ..manager("c") }.update(Some(&live), &mut new).unwrap();
    assert_eq!(fields(&new, "c"), json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(new.meta("managedFields").unwrap()[1]["subresource"], "status");
}

#[test]
fn replicas_are_owned_through_the_scale_too() {
    let live =
        apply(manager("one"), None, &deployment(&json!({"replicas": 2, "paused": true})), false).unwrap();
    let recorded = live.meta("managedFields");
    let scale = managed_of_scale(crate::deployments(), recorded).unwrap();
    assert_eq!(scale[0]["apiVersion"], "autoscaling/v1");
    assert_eq!(scale[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        managed_of_object(crate::deployments(), recorded, Some(&scale)).as_ref(),
        recorded,
        "nothing changed"
    );
    let scaler = json!([{"manager": "s", "operation": "Update", "apiVersion": "autoscaling/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}, "subresource": "scale"}]);
    let taken = managed_of_object(crate::deployments(), recorded, Some(&scaler)).unwrap();
    assert_eq!(taken[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    assert_eq!((&taken[1]["manager"], &taken[1]["apiVersion"]), (&json!("s"), &json!("apps/v1")));
}

fn widget(spec: &Value) -> Object {
    let value =
        json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}, "spec": spec});
    Object::from_value(value).unwrap()
}

#[test]
fn custom_resources_merge_as_their_schema_says_or_as_they_look() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
    }}}});
    let structural = StructuralType::of_resource(&schema);
    let by = |name, typing| FieldManager { name, api_version: "example.com/v1", typing, ..manager("") };
    let (one, two) = (by("one", Typing::Structural(&structural)), by("two", Typing::Structural(&structural)));
    let spec = json!({"parts": [{"name": "a", "n": 1}], "tags": ["x"], "plain": ["p"], "free": {"k": [1]},
        "whole": {"a": "b"}});
    let live = apply(one, None, &widget(&spec), false).unwrap();
    let expected = json!({"f:spec": {"f:free": {"f:k": {}}, "f:parts": {"k:{\"name\":\"a\"}": {".": {}, "f:n": {},
        "f:name": {}}}, "f:plain": {}, "f:tags": {"v:\"x\"": {}}, "f:whole": {}}});
    assert_eq!(fields(&live, "one"), expected);
    let theirs = json!({"parts": [{"name": "b"}], "tags": ["y"], "free": {"l": 1}});
    let live = apply(two, Some(&live), &widget(&theirs), false).unwrap();
    assert_eq!(live.pointer("/spec/tags"), Some(&json!(["x", "y"])));
    assert_eq!(live.pointer("/spec/parts"), Some(&json!([{"name": "a", "n": 1}, {"name": "b"}])));
    let whole = apply(two, Some(&live), &widget(&json!({"whole": {"c": "d"}})), false);
    assert_eq!(whole.unwrap_err().code, 409);
    assert!(apply(two, Some(&live), &widget(&json!({"odd": 1})), false).is_err());
    let no_key = apply(two, Some(&live), &widget(&json!({"parts": [{"n": 1}]})), false).unwrap_err();
    assert!(no_key.message.contains("omits all key fields"), "{}", no_key.message);

    // Without a schema maps are merged and lists replaced.
    let (one, two) = (by("one", Typing::Deduced), by("two", Typing::Deduced));
    let live = apply(one, None, &widget(&json!({"a": {"b": 1}, "list": [1]})), false).unwrap();
    assert_eq!(fields(&live, "one"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:list": {}}}));
    let live = apply(two, Some(&live), &widget(&json!({"a": {"c": 1}})), false).unwrap();
    assert_eq!(live.pointer("/spec/a"), Some(&json!({"b": 1, "c": 1})));
    assert!(apply(two, Some(&live), &widget(&json!({"list": [2]})), false).is_err());
    assert!(apply(two, Some(&live), &widget(&json!({"a": 5})), false).is_err());
}

#[test]
fn clients_without_a_manager_are_known_by_their_agent() {
    assert_eq!(manager_of_user_agent("kubectl/v1.32.4 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of_user_agent("a\u{7}b\tc d"), "abc d");
    assert_eq!(manager_of_user_agent(&"x".repeat(200)).len(), 128);
    assert_eq!(manager_of_user_agent(""), "");
    assert!(FieldManager::name_fault(&"x".repeat(129)).is_some());
    assert!(FieldManager::name_fault("a\nb").is_some() && FieldManager::name_fault("a b").is_none());
}
