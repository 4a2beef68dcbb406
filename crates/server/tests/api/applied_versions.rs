//! Which manager owns which field, where managers write in different versions.

use std::sync::atomic::Ordering;

use http::Request;
use serde_json::{Value, json};

use crate::conversion::{
    DEFINITIONS, V1, V2, answer, definition, done, door, house, moody, redirect, version,
};
use crate::hooks::Hook;
use crate::house::{House, admin, body_of, text};

async fn patch(house: &House, kind: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::patch(path).header("content-type", kind).body(body_of(body.to_string())).unwrap();
    let response = house.server.handle(request, Some(admin())).await;
    let code = response.status().as_u16();
    (code, serde_json::from_str(&text(response).await).unwrap())
}

async fn apply(house: &House, path: &str, options: &str, object: &Value) -> (u16, Value) {
    patch(house, "application/apply-patch+yaml", &format!("{path}?fieldManager={options}"), object).await
}

/// Applies the door `a` in a version; the fields that are there afterwards.
async fn applied(house: &House, version: &str, manager: &str, spec: Value) -> Value {
    let (code, answer) = apply_door(house, version, manager, spec).await;
    assert!(matches!(code, 200 | 201), "{manager}: {answer}");
    answer["spec"].clone()
}

async fn apply_door(house: &House, version: &str, options: &str, spec: Value) -> (u16, Value) {
    let path = format!("{}/a", if version == "v1" { V1 } else { V2 });
    let mut object = door(version, "a", spec);
    object["metadata"] = json!({"name": "a"});
    apply(house, &path, options, &object).await
}

/// Merges into the door `a` as the manager `edit`.
async fn edited(house: &House, version: &str, part: &str, change: Value) {
    let path = format!("{}/a{part}?fieldManager=edit", if version == "v1" { V1 } else { V2 });
    let (code, answer) = patch(house, "application/merge-patch+json", &path, &change).await;
    assert_eq!(code, 200, "{answer}");
}

/// Managers of the door `a` with their versions and their fields.
async fn owners(house: &House) -> Vec<(String, String, Value)> {
    let door = done(house, "GET", &format!("{V1}/a"), None).await;
    let entries = door["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let owner =
        |entry: &Value| (text(&entry["manager"]), text(&entry["apiVersion"]), entry["fieldsV1"].clone());
    entries.iter().map(owner).collect()
}

fn owner(manager: &str, version: &str, fields: Value) -> (String, String, Value) {
    (manager.to_owned(), format!("example.com/{version}"), json!({ "f:spec": fields }))
}

#[tokio::test]
async fn appliers_of_two_versions_see_each_other() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    applied(&house, "v1", "another", json!({"address": "a:1"})).await;
    assert_eq!(hook.count(), 0, "nobody wrote in another version");

    // The same value is shared, whatever it is called.
    assert_eq!(applied(&house, "v2", "two", json!({"host": "a"})).await, json!({"host": "a", "port": 1}));
    let shared = [
        owner("another", "v1", json!({"f:address": {}})),
        owner("one", "v1", json!({"f:address": {}})),
        owner("two", "v2", json!({"f:host": {}})),
    ];
    let mut found = owners(&house).await;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, shared);

    // Another value is a conflict in the field as its owner knows it.
    let (code, refused) = apply_door(&house, "v2", "two", json!({"host": "a", "port": 7})).await;
    assert_eq!(code, 409, "{refused}");
    let causes = json!([
        {"reason": "FieldManagerConflict", "message": "conflict with \"another\"", "field": ".spec.address"},
        {"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.address"},
    ]);
    assert_eq!(refused["details"]["causes"], causes);
    let forced = applied(&house, "v2", "two&force=true", json!({"host": "a", "port": 7})).await;
    assert_eq!(forced, json!({"host": "a", "port": 7}));
    assert_eq!(owners(&house).await, [owner("two", "v2", json!({"f:host": {}, "f:port": {}}))]);

    let (code, refused) = apply_door(&house, "v1", "one", json!({"address": "b:7"})).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (409, &json!(".spec.host")), "{refused}");
    assert_eq!(refused["details"]["causes"].as_array().unwrap().len(), 1, "the port is as it was");
}

#[tokio::test]
async fn an_update_takes_what_it_changes_in_other_versions_too() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    edited(&house, "v2", "", json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert!(
        owners(&house).await.contains(&owner("one", "v1", json!({"f:address": {}}))),
        "that is as it was"
    );
    edited(&house, "v2", "", json!({"spec": {"port": 7}})).await;
    let all = owners(&house).await;
    assert!(all.iter().all(|(manager, _, _)| manager == "edit"), "{all:?}");

    let (code, refused) = apply_door(&house, "v1", "one", json!({"address": "a:8"})).await;
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"edit\" using example.com/v2",
        "field": ".spec.port"}]);
    assert_eq!((code, &refused["details"]["causes"]), (409, &cause), "{refused}");

    // A writer of the status has nothing to do with the rest.
    let before = owners(&house).await.len();
    edited(&house, "v1", "/status", json!({"status": {"open": true}})).await;
    assert_eq!(owners(&house).await.len(), before + 1);
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_whichever_version_it_was_applied_in() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    applied(&house, "v2", "two", json!({"host": "a"})).await;
    // Somebody else still wants the host, and an address has one.
    let mut object = door("v2", "a", Value::Null);
    object["metadata"] = json!({"name": "a", "labels": {"x": "y"}});
    object.as_object_mut().unwrap().remove("spec");
    let (code, kept) = apply(&house, &format!("{V2}/a"), "one", &object).await;
    assert_eq!((code, &kept["spec"]["host"]), (200, &json!("a")), "{kept}");
    assert!(
        !owners(&house).await.iter().any(|(manager, version, _)| manager == "one" && version.ends_with("v1"))
    );

    // Nobody else wants this one.
    done(&house, "DELETE", &format!("{V1}/a"), None).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    let (code, left) = apply(&house, &format!("{V2}/a"), "one", &object).await;
    assert_eq!((code, &left["metadata"]["labels"]), (200, &json!({"x": "y"})));
    assert!(left["spec"]["host"].is_null() && left["spec"]["port"].is_null(), "{left}");
    assert!(done(&house, "GET", &format!("{V1}/a"), None).await["spec"]["address"].is_null());
}

#[tokio::test]
async fn without_its_webhook_updates_go_on_and_nobody_loses_what_they_own() {
    let (hook, fails) = moody().await;
    let house = house(&hook).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    applied(&house, "v2", "two", json!({"host": "a"})).await;
    fails.store(true, Ordering::Relaxed);
    edited(&house, "v1", "", json!({"spec": {"address": "b:2"}})).await;
    let all = owners(&house).await;
    assert!(all.contains(&owner("two", "v2", json!({"f:host": {}}))), "{all:?}");
    assert!(all.contains(&owner("edit", "v1", json!({"f:address": {}}))), "{all:?}");

    let (code, refused) = apply_door(&house, "v1", "one&force=true", json!({"address": "c:3"})).await;
    let told = "conversion webhook for example.com/v1, Kind=Door failed: not in the mood";
    assert_eq!((code, &refused["message"]), (500, &json!(told)));
    assert_eq!(owners(&house).await, all);
    // What changes nothing needs nobody.
    applied(&house, "v1", "one", json!({"address": "b:2"})).await;
}

#[tokio::test]
async fn who_wrote_in_a_version_that_is_no_more_owns_nothing() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    applied(&house, "v1", "one", json!({"address": "a:1"})).await;
    applied(&house, "v2", "two", json!({"host": "a"})).await;
    let mut spec = definition(&hook.config(), "v1")["spec"].clone();
    spec["versions"] = json!([version("v1", true)]);
    done(&house, "PATCH", &format!("{DEFINITIONS}/doors.example.com"), Some(json!({ "spec": spec }))).await;
    assert_eq!(owners(&house).await.len(), 2, "nobody wrote since");
    applied(&house, "v1", "one", json!({"address": "b:2"})).await;
    assert_eq!(owners(&house).await, [owner("one", "v1", json!({"f:address": {}}))]);
    // It comes back, and so may its writers.
    redirect(&house, &hook.config(), "v1").await;
    let (code, refused) = apply_door(&house, "v2", "two", json!({"host": "c"})).await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (409, &json!(".spec.address")),
        "{refused}"
    );
}

#[tokio::test]
async fn versions_that_need_no_webhook_are_told_apart_as_well() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    let none = json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}});
    done(&house, "PATCH", &format!("{DEFINITIONS}/doors.example.com"), Some(none)).await;
    let mut same = version("v1", true);
    same["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["port"] =
        json!({"type": "integer"});
    let versions = json!({"spec": {"versions": [same, version("v2", false)]}});
    done(&house, "PATCH", &format!("{DEFINITIONS}/doors.example.com"), Some(versions)).await;
    applied(&house, "v1", "one", json!({"address": "a", "port": 1})).await;
    let (code, refused) = apply_door(&house, "v2", "two", json!({"port": 2})).await;
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.port"}]);
    assert_eq!((code, &refused["details"]["causes"]), (409, &cause), "{refused}");
    assert_eq!(hook.count(), 0);

    // What is part of the program has versions too.
    let place =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/a");
    let scaler = |version: &str, more: Value| {
        let mut spec = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"}, "spec": spec})
    };
    let first = scaler("v1", json!({"targetCPUUtilizationPercentage": 50}));
    let (code, made) = apply(&house, &place("v1"), "one", &first).await;
    assert_eq!(code, 201, "{made}");
    let cpu = |percent: u8| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        scaler(
            "v2",
            json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}),
        )
    };
    let (code, shared) = apply(&house, &place("v2"), "two", &cpu(50)).await;
    assert_eq!(code, 200, "{shared}");
    let (code, refused) = apply(&house, &place("v2"), "two", &cpu(60)).await;
    assert_eq!(code, 409, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.targetCPUUtilizationPercentage");
}
