//! Parameters of admission policies that are custom resources.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::conversion::{DEFINITIONS, V1, answer, definition, done, door, house, moody, until};
use crate::hooks::Hook;
use crate::house::House;
use crate::policies::{GROUP, MAPS, make, map, matching, policy};

/// A policy on maps whose parameters are doors.
fn by_doors(expression: &str) -> Value {
    json!({
        "paramKind": {"apiVersion": "example.com/v2", "kind": "Door"},
        "matchConstraints": matching(&["CREATE"], &["configmaps"]),
        "validations": [{"expression": expression, "messageExpression": "'only ' + string(params.spec.port)"}],
    })
}

fn binding(reference: Value) -> Value {
    json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": reference})
}

async fn rebind(house: &House, change: Value) {
    let path = format!("{GROUP}/validatingadmissionpolicybindings/b");
    done(house, "PATCH", &path, Some(json!({ "spec": change }))).await;
}

/// What the policy says to a map with that many entries: nothing if it is made.
async fn said(house: &House, name: &str, size: usize) -> Option<String> {
    let data: serde_json::Map<String, Value> = (0..size).map(|n| (format!("k{n}"), json!("v"))).collect();
    let (code, answer) = house.ask("POST", MAPS, Some(map(name, data.into()))).await;
    if code == 201 {
        done(house, "DELETE", &format!("{MAPS}/{name}"), None).await;
        return None;
    }
    assert_eq!((code, answer["reason"].as_str()), (422, Some("Invalid")), "{answer}");
    answer["details"]["causes"][0]["message"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn parameters_are_custom_resources_in_the_version_that_the_policy_names() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    for (name, address) in [("two", "a:2"), ("four", "a:4")] {
        done(&house, "POST", V1, Some(door("v1", name, json!({ "address": address })))).await;
    }
    let not_found = json!({"name": "two", "parameterNotFoundAction": "Deny"});
    policy(&house, by_doors("size(object.data) <= params.spec.port"), binding(not_found)).await;
    let denied =
        |why: &str| Some(format!("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {why}"));
    assert_eq!(said(&house, "m", 2).await, None);
    assert_eq!(said(&house, "m", 3).await, denied("only 2"));
    assert_eq!(hook.count(), 1, "what was converted is kept");

    // A change counts at once.
    done(&house, "PATCH", &format!("{V1}/two"), Some(json!({"spec": {"address": "a:3"}}))).await;
    assert_eq!(said(&house, "m", 3).await, None);

    // By labels: each of them must allow it.
    let both = json!({"matchExpressions": [{"key": "name", "operator": "In", "values": ["two", "four"]}]});
    rebind(&house, json!({"paramRef": {"name": null, "selector": both}})).await;
    assert_eq!(said(&house, "m", 3).await, None);
    assert_eq!(said(&house, "m", 4).await, denied("only 3"));
    let four = json!({"matchExpressions": null, "matchLabels": {"name": "four"}});
    rebind(&house, json!({"paramRef": {"selector": four}})).await;
    assert_eq!(said(&house, "m", 4).await, None);
    assert_eq!(said(&house, "m", 5).await, denied("only 4"));

    // Nobody there.
    rebind(&house, json!({"paramRef": {"selector": {"matchLabels": {"name": "none"}}}})).await;
    let none =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(said(&house, "m", 1).await, denied(none));
    // That is no matter of what the policy says: its bindings' actions are.
    rebind(&house, json!({"validationActions": ["Warn"]})).await;
    assert_eq!(said(&house, "m", 1).await, denied(none));
    rebind(&house, json!({"paramRef": {"parameterNotFoundAction": "Allow"}})).await;
    assert_eq!(said(&house, "m", 9).await, None);
}

#[tokio::test]
async fn a_policy_changes_objects_by_what_a_custom_resource_says() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "front", json!({"address": "gate:80"})))).await;
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v2", "kind": "Door"},
        "matchConstraints": matching(&["CREATE"], &["configmaps"]), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'host': params.spec.host}}}"}}],
    });
    let (code, answer) = make(&house, "MutatingAdmissionPolicy", "p", spec).await;
    assert_eq!(code, 201, "{answer}");
    let reference = json!({"name": "front", "parameterNotFoundAction": "Deny"});
    let bound = json!({"policyName": "p", "paramRef": reference});
    assert_eq!(make(&house, "MutatingAdmissionPolicyBinding", "b", bound).await.0, 201);
    let made = done(&house, "POST", MAPS, Some(map("m", json!({"k": "v"})))).await;
    assert_eq!(made["metadata"]["labels"], json!({"host": "gate"}));

    done(&house, "DELETE", &format!("{V1}/front"), None).await;
    let (code, refused) = house.ask("POST", MAPS, Some(map("n", json!({"k": "v"})))).await;
    let why = "policy 'p' with binding 'b' denied request: failed to configure binding: no params found for policy \
        binding with `Deny` parameterNotFoundAction";
    assert_eq!((code, &refused["reason"], &refused["message"]), (403, &json!("Forbidden"), &json!(why)));
}

#[tokio::test]
async fn without_the_kind_of_its_parameters_a_policy_refuses_or_is_ignored() {
    let house = House::new().await;
    let reference = json!({"name": "two", "parameterNotFoundAction": "Allow"});
    policy(&house, by_doors("size(object.data) <= params.spec.port"), binding(reference.clone())).await;
    let unknown = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource \
        referenced by paramKind: 'example.com/v2, Kind=Door'";
    assert_eq!(said(&house, "m", 1).await.as_deref(), Some(unknown));
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    done(&house, "PATCH", &path, Some(json!({"spec": {"failurePolicy": "Ignore"}}))).await;
    assert_eq!(said(&house, "m", 1).await, None);
    done(&house, "PATCH", &path, Some(json!({"spec": {"failurePolicy": "Fail"}}))).await;
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v2", "kind": "Door"},
        "matchConstraints": matching(&["CREATE"], &["secrets"]), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
    });
    assert_eq!(make(&house, "MutatingAdmissionPolicy", "p", spec).await.0, 201);
    let bound = json!({"policyName": "p", "paramRef": reference});
    assert_eq!(make(&house, "MutatingAdmissionPolicyBinding", "b", bound).await.0, 201);
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    let (code, refused) = house.ask("POST", secrets, Some(secret.clone())).await;
    let why = "policy \"p\" denied request: failed to configure policy: failed to find resource referenced by \
        paramKind: 'example.com/v2, Kind=Door'";
    assert_eq!((code, refused["message"].as_str()), (403, Some(why)));

    // Once it is there, so is its policy.
    let hook = Hook::reviewing(answer, None).await;
    done(&house, "POST", DEFINITIONS, Some(definition(&hook.config(), "v1"))).await;
    until(&house, V1, |code, _| code == 200).await;
    assert_eq!(said(&house, "m", 1).await, None);
    done(&house, "POST", secrets, Some(secret)).await;
    done(&house, "POST", V1, Some(door("v1", "two", json!({"address": "a:2"})))).await;
    assert!(said(&house, "m", 3).await.unwrap().ends_with("only 2"));
}

#[tokio::test]
async fn parameters_that_cannot_be_had_refuse_as_well() {
    let (hook, fails) = moody().await;
    fails.store(true, Ordering::Relaxed);
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "two", json!({"address": "a:2"})))).await;
    let reference = json!({"name": "two", "parameterNotFoundAction": "Allow"});
    policy(&house, by_doors("size(object.data) <= params.spec.port"), binding(reference)).await;
    let why = "failed to configure binding: conversion webhook for example.com/v1, Kind=Door failed: not in the mood";
    assert!(said(&house, "m", 1).await.unwrap().ends_with(why));
    fails.store(false, Ordering::Relaxed);
    assert_eq!(said(&house, "m", 1).await, None);

    // A namespace makes no sense where there is none.
    let cluster = json!({"name": "x", "namespace": "default", "parameterNotFoundAction": "Allow"});
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    let nodes = json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "Node"}}});
    done(&house, "PATCH", &path, Some(nodes)).await;
    rebind(&house, json!({ "paramRef": cluster })).await;
    let why = "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
    assert!(said(&house, "m", 1).await.unwrap().ends_with(why));
}
