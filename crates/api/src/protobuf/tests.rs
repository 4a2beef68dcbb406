use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn there_and_back(object: &Value) -> Value {
    let bytes = to_protobuf(object.as_object().unwrap()).unwrap();
    from_protobuf(&bytes, ("", "")).unwrap()
}

/// Whether Go would hold the same: what is missing in `after` was nothing.
fn same(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}/{key}");
                match after.get(key) {
                    Some(other) => same(&path, value, other, found),
                    None if nothing(value) => {}
                    // An object within another has no message of its kind: `TypeMeta` is the envelope's.
                    None if matches!(key.as_str(), "kind" | "apiVersion")
                        && before.contains_key("metadata") => {}
                    None => found.push(format!("{path} is lost: {value}")),
                }
            }
            found.extend(
                after.keys().filter(|key| !before.contains_key(*key)).map(|key| format!("{path}/{key}")),
            );
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                same(&format!("{path}/{index}"), before, after, found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {before} became {after}")),
    }
}

fn nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.values().all(nothing),
        Value::Array(list) => list.is_empty(),
        Value::Bool(true) => false,
    }
}

/// A placeholder of the recording as a value of its type.
fn filled(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Fields' sets are written in any order and hold placeholders in their names.
            map.remove("managedFields");
            for (key, value) in map.iter_mut() {
                if value.as_str().is_some_and(|text| text.contains('<')) {
                    *value = match key.as_str() {
                        "port" | "nodePort" | "healthCheckNodePort" => json!(30001),
                        _ if value == "<time>" => json!("2026-01-02T03:04:05Z"),
                        _ => continue,
                    };
                }
                if matches!(key.as_str(), "acquireTime" | "renewTime" | "eventTime") && value.is_string() {
                    *value = json!("2026-01-02T03:04:05.000006Z");
                }
                filled(value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(filled),
        _ => {}
    }
}

#[test]
fn every_recorded_answer_survives_protobuf() {
    let recorded = include_str!("../../testdata/recorded.jsonl");
    let (mut objects, mut found) = (0, Vec::new());
    for line in recorded.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        for step in case["steps"].as_array().unwrap() {
            let mut body = step["answer"]["body"].clone();
            let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            if text("apiVersion").is_empty()
                || !has_protobuf(&text("apiVersion"), &text("kind"))
                || text("kind").starts_with("PartialObject")
            {
                continue;
            }
            filled(&mut body);
            objects += 1;
            same(&format!("{} {}", case["case"], step["path"]), &body, &there_and_back(&body), &mut found);
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(objects > 600, "{objects} objects");
}

/// Kubernetes keeps an object of each kind, with every field set, as it writes it itself in each form.
#[test]
fn upstreams_own_objects_are_read_and_written_alike() {
    let packed = &include_bytes!("../../testdata/protobuf.jsonl.gz")[..];
    let lines = std::io::read_to_string(flate2::read::GzDecoder::new(packed)).unwrap();
    let (mut objects, mut found) = (0, Vec::new());
    for line in lines.lines() {
        let example: Value = serde_json::from_str(line).unwrap();
        let object = &example["json"];
        // Events of watches and reviews of admission have no form of their own here.
        let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
            continue;
        };
        if !has_protobuf(version, kind) {
            continue;
        }
        objects += 1;
        let bytes = STANDARD.decode(example["protobuf"].as_str().unwrap()).unwrap();
        match from_protobuf(&bytes, ("", "")) {
            Ok(read) => differences(&format!("{version} {kind}"), object, &read, &mut found),
            Err(error) => found.push(format!("{version} {kind}: {error}")),
        }
        differences(&format!("{version} {kind} there and back"), object, &there_and_back(object), &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(objects > 80, "{objects} objects");
}

fn differences(path: &str, expected: &Value, read: &Value, found: &mut Vec<String>) {
    match (expected, read) {
        (Value::Object(expected), Value::Object(read)) => {
            let keys: BTreeSet<&String> = expected.keys().chain(read.keys()).collect();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}/{key}"), &of(expected), &of(read), found);
            }
        }
        (Value::Array(expected), Value::Array(read)) if expected.len() == read.len() => {
            for (index, (expected, read)) in expected.iter().zip(read).enumerate() {
                differences(&format!("{path}/{index}"), expected, read, found);
            }
        }
        _ if expected == read => {}
        _ => found.push(format!("{path}: {expected} is read as {read}")),
    }
}

#[test]
fn zero_is_told_where_it_means_something() {
    let spec = json!({"replicas": 0, "paused": false, "selector": {}, "minReadySeconds": 0});
    let object =
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(there_and_back(&object)["spec"], json!({"replicas": 0, "selector": {}}));
    let status = json!({"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": ""});
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "status": {"containerStatuses": [status.clone()]}});
    assert_eq!(there_and_back(&pod)["status"]["containerStatuses"][0], status);
}

#[test]
fn values_that_json_writes_otherwise_come_back() {
    let schema = json!({"type": "object", "properties": {"a": {"items": {"type": "string"}, "default": {"x": [1, null]},
        "maximum": 1.5, "minimum": 3, "enum": ["a", 1, null], "x-kubernetes-preserve-unknown-fields": true,
        "additionalProperties": false}, "b": {"additionalProperties": {"$ref": "x"}, "items": [{"type": "integer"}],
        "dependencies": {"d": ["e", "f"], "g": {"type": "string"}}}}});
    let versions =
        json!([{"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}}]);
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "a", "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:a": {}}}}]},
        "spec": {"group": "g", "versions": versions, "names": {"plural": "p", "kind": "K"}, "scope": "Cluster"}});
    assert_eq!(there_and_back(&definition), definition);
    let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"user": "u", "extra": {"a": ["b", "c"]}}, "status": {"allowed": false}});
    assert_eq!(there_and_back(&review), review);
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "data": {"a": "AAEC", "b": ""}});
    assert_eq!(there_and_back(&secret), secret);
}

#[test]
fn a_list_is_written_item_by_item() {
    let mut list = ProtobufList::new("v1", "ConfigMap", &json!({"resourceVersion": "7"})).unwrap();
    for name in ["a", "b"] {
        list.push(&machinery::Object::from_value(json!({"metadata": {"name": name}})).unwrap());
    }
    let items = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]);
    let expected = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items});
    assert_eq!(from_protobuf(&list.finish(), ("", "")).unwrap(), expected);
}

#[test]
fn what_is_no_object_is_refused() {
    let refused = |bytes: &[u8]| from_protobuf(bytes, ("v1", "Pod")).unwrap_err();
    assert_eq!(refused(b"{}"), ProtobufError::Prefix);
    assert_eq!(refused(b"k8s\0\x12\x05\x0a"), ProtobufError::Broken);
    let mut nested = Vec::new();
    for _ in 0..1000 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 28, &nested);
        nested = outer;
    }
    for number in [1, 4, 7, 1] {
        let mut outer = Vec::new();
        if number == 7 {
            wire::put_bytes(&mut outer, 1, b"v1");
            wire::put_bytes(&mut outer, 4, &nested);
        } else {
            wire::put_bytes(&mut outer, number, &nested);
        }
        nested = outer;
    }
    let of = table::message("apiextensions.v1.JSONSchemaProps").unwrap();
    let mut deep = Vec::new();
    for _ in 0..1000 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 28, &deep);
        deep = outer;
    }
    assert_eq!(
        decode::get_message(&deep, of, &mut Map::new(), 0, &mut Default::default()),
        Err(ProtobufError::TooDeep)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_an_object_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..6usize) {
        let kinds = ["v1 Pod", "apps/v1 Deployment", "v1 Secret", "apiextensions.k8s.io/v1 CustomResourceDefinition",
            "v1 Event", "authentication.k8s.io/v1 TokenReview"];
        let (version, kind) = kinds[kind].split_once(' ').unwrap();
        let mut body = b"k8s\0".to_vec();
        wire::put_bytes(&mut body, 2, &bytes);
        if let Ok(value) = from_protobuf(&body, (version, kind)) {
            // Whatever was read can be written and is read the same again.
            prop_assert_eq!(there_and_back(&value), value);
        }
        let _ = from_protobuf(&[b"k8s\0", &bytes[..]].concat(), (version, kind));
    }

    #[test]
    fn a_flipped_byte_is_an_object_or_an_error(at in 0..400usize, byte: u8) {
        let container = json!({"name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": "web"}}});
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}});
        let mut bytes = to_protobuf(pod.as_object().unwrap()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = from_protobuf(&bytes, ("v1", "Pod"));
    }
}
