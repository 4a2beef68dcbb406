//! Laws of decoding, patches and defaults, over values that nobody chose.

#![allow(missing_docs, clippy::unwrap_used)]

use api::{resource, resources};
use machinery::{
    FieldSelector, LabelSelector, Object, PatchType, Resource, check, decode, patch, prepare_create,
    prepare_update, set_defaults, table, validate_create, validate_update,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn deployments() -> &'static Resource {
    resource("apps", "v1", "deployments").unwrap()
}

/// JSON with the names that objects have, so that schemas are met at all.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(Always|Never|TCP|10m|1Gi|a|b|50%||2026-01-31T12:00:00Z|\\PC{0,8})".prop_map(Value::from),
    ];
    let key = "(metadata|spec|status|name|labels|template|containers|env|ports|containerPort|protocol|port|resources|\
        limits|requests|selector|matchLabels|matchExpressions|replicas|strategy|type|volumes|configMap|data|taints|\
        finalizers|ownerReferences|conditions|addresses|endpoints|subsets|tolerations|\\$patch|\\$retainKeys|\
        \\$setElementOrder/containers|\\$deleteFromPrimitiveList/finalizers|x)";
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

/// An operation of RFC 6902, sensible or not.
fn any_operation() -> impl Strategy<Value = Value> {
    let path = "(/(metadata|spec|labels|template|containers|0|1|-|a~1b|~2)){0,4}";
    let name = "(add|remove|replace|move|copy|test|none)";
    (name, path, path, any_json())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

fn any_object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map("(metadata|spec|status|data|type|subsets|endpoints|ports)", any_json(), 0..5)
        .prop_map(|map| Object::from_value(json!(map)).unwrap())
}

/// A deployment, and a strategic patch for it.
fn container() -> impl Strategy<Value = Value> {
    let variables = prop::collection::btree_map("[A-D]", "[a-z]{0,3}", 0..4);
    let variables = variables
        .prop_map(|map| map.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect::<Value>());
    ("[a-c]", "[a-z]{1,3}", variables)
        .prop_map(|(name, image, env)| json!({"name": name, "image": image, "env": env}))
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::vec(container(), 0..4).prop_map(|list| {
        let mut seen = Vec::new();
        list.into_iter()
            .filter(|c| {
                !seen.contains(&c["name"]) && {
                    seen.push(c["name"].clone());
                    true
                }
            })
            .collect()
    })
}

fn deployment(containers: &Value) -> Object {
    let spec =
        json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": containers}}});
    Object::from_value(
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": spec}),
    )
    .unwrap()
}

proptest! {
    #[test]
    fn any_bytes_are_an_object_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for resource in resources() {
            let _ = decode(resource, &bytes);
        }
    }

    #[test]
    fn any_object_goes_through_or_is_told_off(object in any_object(), other in any_object()) {
        for resource in resources() {
            let mut object = object.clone();
            if check(resource, &mut object).is_err() {
                continue;
            }
            let again = object.clone();
            prop_assert!(check(resource, &mut object).unwrap().is_empty());
            prop_assert_eq!(&object, &again, "held against the schema again, nothing changes");
            set_defaults(resource, &mut object).unwrap();
            let again = object.clone();
            set_defaults(resource, &mut object).unwrap();
            prop_assert_eq!(&object, &again, "defaults set again change nothing");
            prepare_create(resource, &mut object);
            validate_create(resource, &object);
            table(resource, std::slice::from_ref(&object), &json!({}), machinery::Include::Metadata, 0);
            let mut other = other.clone();
            if check(resource, &mut other).is_ok() {
                set_defaults(resource, &mut other).unwrap();
                for subresource in ["", "status"] {
                    let mut update = other.clone();
                    prepare_update(resource, subresource, &mut update, &object);
                    validate_update(resource, subresource, &update, &object);
                }
            }
        }
    }

    #[test]
    fn any_text_is_a_selector_or_is_told_off(text in "\\PC{0,40}", near in "[a-z]{0,3}[ ]?(=|==|!=|in|notin|,|\\(|\\)|!|>|<| ){0,4}[a-z0-9]{0,3}",
        object in any_object()) {
        for text in [&text, &near] {
            if let Ok(selector) = LabelSelector::parse(text) {
                selector.matches(&object);
                let again = LabelSelector::parse(&selector.to_string()).unwrap();
                prop_assert_eq!(selector.matches(&object), again.matches(&object), "written and read again");
            }
            for resource in resources() {
                if let Ok(selector) = FieldSelector::parse(resource, text) {
                    selector.matches(&object);
                }
            }
        }
    }

    #[test]
    fn any_operations_apply_or_are_told_off(object in any_object(), operations in prop::collection::vec(any_operation(), 0..6)) {
        let operations = Value::Array(operations);
        if let Ok(patched) = patch(deployments(), PatchType::Json, &object, &operations) {
            let tests = operations.as_array().unwrap().iter().all(|operation| operation["op"] == "test");
            prop_assert!(!tests || patched == object, "tests alone change nothing");
        }
    }

    #[test]
    fn any_bytes_are_values_or_are_told_off(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = values::json_and_duplicates(&bytes);
        machinery::manager_of_user_agent(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_patch_applies_or_is_told_off(object in any_object(), change in any_json()) {
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = patch(deployments(), kind, &object, &change);
        }
    }

    #[test]
    fn a_merge_patch_is_what_json_patch_makes_of_it(labels in prop::collection::btree_map("[a-d]", "[a-z]{0,3}", 0..4),
        change in prop::collection::btree_map("[a-d]", prop::option::of("[a-z]{0,3}"), 0..4)) {
        let mut object = deployment(&json!([]));
        object.set_meta("labels", json!(labels));
        let change = json!({"metadata": {"labels": change}});
        let mut expected = object.clone().into_value();
        json_patch::merge(&mut expected, &change);
        prop_assert_eq!(patch(deployments(), PatchType::Merge, &object, &change).unwrap().into_value(), expected);
    }

    #[test]
    fn a_strategic_patch_applied_again_changes_nothing(old in containers(), new in containers()) {
        let object = deployment(&old);
        let change = json!({"spec": {"template": {"spec": {"containers": new}}}});
        let once = patch(deployments(), PatchType::Strategic, &object, &change).unwrap();
        let twice = patch(deployments(), PatchType::Strategic, &once, &change).unwrap();
        prop_assert_eq!(&once, &twice);
        let merged = once.pointer("/spec/template/spec/containers").unwrap().as_array().unwrap();
        for list in [&old, &new] {
            for container in list.as_array().unwrap() {
                prop_assert!(merged.iter().any(|m| m["name"] == container["name"]), "no container is lost");
            }
        }
    }
}

#[test]
fn what_is_unknown_or_twice_is_told() {
    let body = br#"{"spec":{"replicas":1,"replicas":2,"nonsense":1,"template":{"spec":{"containers":[{"name":"a","x":{}}]}}}}"#;
    let decoded = decode(deployments(), body).unwrap();
    assert_eq!(
        decoded.faults,
        [
            r#"unknown field "spec.nonsense""#,
            r#"unknown field "spec.template.spec.containers[0].x""#,
            r#"duplicate field "spec.replicas""#
        ]
    );
    assert_eq!(decoded.object.pointer("/spec/replicas"), Some(&json!(2)));
}

#[test]
fn a_wrong_type_is_told_with_its_path() {
    let body = br#"{"spec":{"template":{"spec":{"containers":[{"name":1}]}}}}"#;
    let status = decode(deployments(), body).unwrap_err();
    assert_eq!((status.code, status.reason), (400, "BadRequest"));
    let field = "Container.spec.template.spec.containers.name of type string";
    assert!(status.message.ends_with(field), "{status}");
}

#[test]
fn a_patch_can_not_nest_without_end() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": {}})];
    for index in 0..4900 {
        let (from, to) = if index % 2 == 0 { ("a", "b") } else { ("b", "a") };
        operations.push(json!({"op": "add", "path": format!("/{to}"), "value": {"x": {}}}));
        operations.push(json!({"op": "move", "from": format!("/{from}"), "path": format!("/{to}/x/y")}));
    }
    let status =
        patch(deployments(), PatchType::Json, &deployment(&json!([])), &json!(operations)).unwrap_err();
    assert_eq!(status.code, 422, "{status}");
}

#[test]
fn a_patch_can_not_copy_without_end() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1000)]})];
    operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/0"})));
    let status =
        patch(deployments(), PatchType::Json, &deployment(&json!([])), &json!(operations)).unwrap_err();
    assert_eq!(status.code, 413, "{status}");
}
