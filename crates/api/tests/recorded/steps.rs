//! The recording, and both sides brought to what can be compared.

use serde_json::{Map, Value};

use crate::registry::UID;

const RECORDED: &str = include_str!("../../testdata/recorded.jsonl");

fn all() -> impl Iterator<Item = Value> {
    RECORDED.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// The names of the cases.
pub fn cases() -> impl Iterator<Item = String> {
    all().map(|case| case["case"].as_str().unwrap().to_owned())
}

/// The steps of a case.
pub fn case(name: &str) -> Vec<Value> {
    let case = all().find(|case| case["case"] == name).unwrap();
    case["steps"].as_array().unwrap().clone()
}

/// `value` with placeholders for what differs, without messages, and without what admission adds to pods and nodes
/// and the server's allocators to services: neither is this crate's.
pub fn like_recorded(value: &Value) -> Value {
    let mut value = value.clone();
    normalise(&mut value);
    value
}

fn normalise(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Object(map) => {
            without_admission(map);
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "uid" if value.is_string() => *value = "<uid>".into(),
                    "resourceVersion" if value.is_string() => *value = "<rv>".into(),
                    "nodePort" => *value = "<port>".into(),
                    // Go writes a list that was never made as null.
                    "items" if value.is_null() => *value = Value::Array(Vec::new()),
                    "cells" => cells(value),
                    _ => normalise(value),
                }
            }
        }
        Value::String(text) if is_time(text) => *value = "<time>".into(),
        Value::String(text) if text == UID => *value = "<uid>".into(),
        _ => {}
    }
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

fn cells(cells: &mut Value) {
    for cell in cells.as_array_mut().unwrap() {
        if let Value::String(text) = cell {
            *text = match text.as_str() {
                "0s" => "<age>".into(),
                time if is_time(time) => "<time>".into(),
                other => other.replace("31000", "<port>").replace(UID, "<uid>"),
            };
        }
    }
}

fn without_admission(map: &mut Map<String, Value>) {
    map.remove("description");
    map.remove("managedFields");
    if map.get("code").is_some() || map.contains_key("reason") && map.contains_key("message") {
        map.remove("message");
    }
    let is_protection = |finalizer: &Value| finalizer.as_str().unwrap().ends_with("-protection");
    if map.get("finalizers").and_then(Value::as_array).is_some_and(|list| list.iter().all(is_protection)) {
        map.remove("finalizers");
    }
    if map.get("kind").is_some_and(|kind| kind == "Pod")
        && let Some(Value::Object(spec)) = map.get_mut("spec")
    {
        for field in ["tolerations", "priority", "preemptionPolicy", "serviceAccount", "serviceAccountName"] {
            spec.remove(field);
        }
        let is_token = |entry: &Value| entry["name"].as_str().unwrap().starts_with("kube-api-access");
        let retain = |list: Option<&mut Value>| {
            list.and_then(Value::as_array_mut).is_some_and(|list| {
                list.retain(|entry| !is_token(entry));
                list.is_empty()
            })
        };
        if retain(spec.get_mut("volumes")) {
            spec.remove("volumes");
        }
        for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
            if retain(container.get_mut("volumeMounts")) {
                container.as_object_mut().unwrap().remove("volumeMounts");
            }
        }
    }
    if map.get("kind").is_some_and(|kind| kind == "Node")
        && let Some(Value::Object(spec)) = map.get_mut("spec")
    {
        spec.remove("taints");
    }
}
