//! Replays what was recorded from a kube-apiserver 1.36 and holds every answer against the recorded one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use server::Body;

use crate::compare::differences;
use crate::house::{House, admin};
use crate::known::KNOWN;

const RECORDED: &str = include_str!("../../../api/testdata/recorded.jsonl");

/// The request of a step, with what earlier steps saved.
fn request(step: &Value, saved: &BTreeMap<String, String>) -> Request<Body> {
    let mut path = step["path"].as_str().unwrap().to_owned();
    let mut body = match (step.get("body"), step.get("raw")) {
        (Some(body), _) => Some(body.to_string()),
        (None, Some(raw)) => Some(raw.as_str().unwrap().to_owned()),
        (None, None) => None,
    };
    for (name, value) in saved {
        path = path.replace(&format!("{{{name}}}"), value);
        body = body.map(|body| body.replace(&format!("{{{{{name}}}}}"), value));
    }
    let mut request = Request::builder().method(step["method"].as_str().unwrap()).uri(path);
    for (name, value) in step.get("headers").and_then(Value::as_object).into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap());
    }
    let body = Full::new(Bytes::from(body.unwrap_or_default()));
    request.body(body.map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// An answer in the form of the recording: JSON, text, or the lines of a watch.
async fn answer(response: Response<Body>, recorded: &Value) -> Value {
    let code = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = match &recorded["body"] {
        Value::Array(_) => text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect(),
        Value::String(_) => json!(text),
        _ => serde_json::from_str(&text).unwrap_or(json!(text)),
    };
    let mut answer = json!({"code": code, "headers": {}, "body": body});
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        if let Some(actual) = headers.get(name).and_then(|value| value.to_str().ok()) {
            // Of a warning only its code is recorded.
            let length = if name == "Warning" { value.as_str().unwrap().len() } else { actual.len() };
            answer["headers"][name] = json!(actual[..length.min(actual.len())]);
        }
    }
    answer
}

/// Lets the server do what it does by itself: time is paused, and goes on once nothing else does.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn replay(case: &Value) -> Vec<String> {
    let house = House::new().await;
    let name = case["case"].as_str().unwrap();
    let mut saved = BTreeMap::new();
    let mut found = Vec::new();
    for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        if let Some(seconds) = step["wait_seconds"].as_u64() {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            continue;
        }
        let response = house.server.handle(request(step, &saved), Some(admin())).await;
        let actual = answer(response, &step["answer"]).await;
        for (key, path) in step.get("save").and_then(Value::as_object).into_iter().flatten() {
            let pointer = format!("/body/{}", path.as_str().unwrap().replace('.', "/"));
            let value = actual.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
            saved.insert(key.clone(), value.to_owned());
        }
        settle().await;
        let what = format!(
            "{name}, step {index}, {} {}",
            step["method"].as_str().unwrap(),
            step["path"].as_str().unwrap()
        );
        found.extend(differences(&step["answer"], &actual).into_iter().map(|d| format!("{what}: {d}")));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn answers_are_those_of_the_recorded_server() {
    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    for line in RECORDED.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        for difference in replay(&case).await {
            let known: Vec<usize> = (0..KNOWN.len()).filter(|i| KNOWN[*i].covers(&difference)).collect();
            if known.is_empty() {
                unknown.push(difference);
            }
            seen.extend(known);
        }
    }
    let vanished: Vec<_> = (0..KNOWN.len()).filter(|i| !seen.contains(i)).map(|i| &KNOWN[i]).collect();
    assert!(
        unknown.is_empty() && vanished.is_empty(),
        "{} differences that nobody listed:\n{}\n\nlisted, but no more there (take them out): {vanished:#?}",
        unknown.len(),
        unknown.join("\n"),
    );
}
