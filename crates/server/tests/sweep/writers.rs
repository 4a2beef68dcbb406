//! Several writers over one object: applies, forced and not, patches of every kind, and updates.

use http::Request;
use serde_json::{Value, json};

use crate::flat::{GIVEN, same, without_times};
use crate::house::{House, admin, body_of, text};
use crate::report::{Difference, hold, short};
use crate::{side_by_side, testdata};

/// How many steps are answered exactly alike at least.
const STEPS: usize = 6_604;

const NAMESPACE: &str = "walks";

/// The definition of the kind `Walk`, whose lists and maps are of every type.
fn definition() -> Value {
    let text = json!({"type": "string"});
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": text});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let spec = json!({
        "name": text, "set": set, "free": open,
        "atomic": {"type": "array", "x-kubernetes-list-type": "atomic", "items": text},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": text, "v": {"type": "integer"}, "tags": set},
        }},
        "two": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {
            "type": "object", "required": ["a", "b"],
            "properties": {"a": text, "b": {"type": "integer", "default": 7}, "c": text},
        }},
        "granular": {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}},
        "atomicMap": {
            "type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"},
        },
    });
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": open}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "walks.walks.example.com"},
        "spec": {
            "group": "walks.example.com", "scope": "Namespaced", "names": {"plural": "walks", "kind": "Walk"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

async fn house() -> House {
    let house = House::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    house.ask("POST", "/api/v1/namespaces", Some(namespace)).await;
    house.account(NAMESPACE).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) = house.ask("POST", definitions, Some(definition())).await;
    assert_eq!(code, 201, "{answer}");
    let walks = format!("/apis/walks.example.com/v1/namespaces/{NAMESPACE}/walks");
    while house.ask("GET", &walks, None).await.0 != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    house
}

async fn ask(house: &House, step: &Value) -> (u16, Value) {
    let media_type = match step["type"].as_str() {
        Some("apply") => "application/apply-patch+yaml",
        Some("json") => "application/json-patch+json",
        Some("merge") => "application/merge-patch+json",
        Some("strategic") => "application/strategic-merge-patch+json",
        _ => "application/json",
    };
    let request =
        Request::builder().method(step["method"].as_str().unwrap()).uri(step["path"].as_str().unwrap());
    let request = request.header("content-type", media_type).body(body_of(step["body"].to_string())).unwrap();
    let response = house.server.handle(request, Some(admin())).await;
    let code = response.status().as_u16();
    (code, serde_json::from_str(&text(response).await).unwrap_or_default())
}

/// An object without what differs from run to run.
fn cleaned(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| !GIVEN.contains(&key.as_str()));
        let fields = metadata.entry("managedFields").or_insert_with(|| json!([]));
        if let Some(entries) = fields.as_array_mut() {
            entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| _ = entry.remove("time"));
            entries.sort_by_key(Value::to_string);
        }
    }
    without_chance(&mut object);
    object
}

fn without_chance(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let is_address = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("10.96"));
                match key.as_str() {
                    "clusterIP" if is_address(value) => *value = json!("<ip>"),
                    "clusterIPs"
                        if value.as_array().is_some_and(|list| list.len() == 1 && is_address(&list[0])) =>
                    {
                        *value = json!(["<ip>"]);
                    }
                    "nodePort" | "healthCheckNodePort" if value.is_number() => *value = json!("<port>"),
                    _ => without_chance(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(without_chance),
        Value::String(text) => *text = without_times(text),
        _ => {}
    }
}

fn kept(code: u16, answer: Value) -> Value {
    if code < 400 {
        return json!({"code": code, "object": cleaned(answer)});
    }
    let part = |cause: &Value, part: &str| cause[part].as_str().unwrap_or_default().to_owned();
    let causes = answer.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
    let mut causes: Vec<Vec<String>> = causes
        .map(|cause| {
            let mut kept = vec![part(cause, "reason"), part(cause, "field")];
            if kept[0] == "FieldManagerConflict" {
                kept.push(part(cause, "message").split_whitespace().collect::<Vec<_>>().join(" "));
            }
            kept
        })
        .collect();
    causes.sort();
    json!({"code": code, "reason": answer["reason"], "causes": causes})
}

/// The first place where two values differ, with both.
fn first_difference(path: &str, recorded: &Value, here: &Value) -> Option<String> {
    match (recorded, here) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => first_difference(&format!("{path}.{key}"), a, b),
                (a, b) => Some(format!(
                    "{path}.{key}: recorded {}, here {}",
                    a.map_or("nothing".into(), short),
                    b.map_or("nothing".into(), short)
                )),
            })
            .next()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| first_difference(&format!("{path}[]"), a, b))
        }
        _ if same(recorded, here) => None,
        _ => Some(format!("{path}: recorded {}, here {}", short(recorded), short(here))),
    }
}

struct Found {
    steps: usize,
    alike: usize,
    differences: Vec<Difference>,
}

async fn replay(house: &House, walk: &Value, found: &mut Found) {
    let mut went_apart = false;
    for (index, step) in walk["steps"].as_array().unwrap().iter().enumerate() {
        let (code, answer) = ask(house, step).await;
        let message = answer["message"].clone();
        let here = kept(code, answer);
        let mut recorded = step["answer"].clone();
        if let Some(fields) =
            recorded.pointer_mut("/object/metadata/managedFields").and_then(Value::as_array_mut)
        {
            fields.sort_by_key(Value::to_string);
        }
        found.steps += 1;
        match first_difference("", &recorded, &here) {
            None => found.alike += 1,
            Some(difference) => {
                let follows = if went_apart { " (after another)" } else { "" };
                let kind = format!("{} {}{follows} {difference}", step["method"], step["type"]);
                let all = json!({
                    "walk": walk["walk"], "index": index, "step": step, "here": here, "first": difference,
                    "message": message, "follows": went_apart,
                });
                found.differences.push(Difference { kind, all });
                went_apart = true;
            }
        }
    }
    house.ask("DELETE", walk["delete"].as_str().unwrap(), None).await;
}

#[test]
fn walks_of_several_writers_end_as_recorded() {
    let walks = testdata::walks();
    let halves: Vec<&[Value]> = walks.chunks(walks.len().div_ceil(2)).collect();
    let found = side_by_side(halves, async |walks| {
        let house = house().await;
        let mut found = Found { steps: 0, alike: 0, differences: Vec::new() };
        for walk in walks {
            replay(&house, walk, &mut found).await;
        }
        found
    });
    let (steps, alike) = (found.iter().map(|f| f.steps).sum(), found.iter().map(|f| f.alike).sum());
    let differences: Vec<Difference> = found.into_iter().flat_map(|f| f.differences).collect();
    hold("walks", &[("steps", alike, STEPS)], steps, &differences);
}
