//! Expressions of CEL, as a message of a custom resource's rule: whether they compile, and what they give.

use serde_json::{Value, json};

use crate::house::House;
use crate::report::{Difference, hold};
use crate::{side_by_side, testdata};

/// How many expressions are alike at least.
const EXPRESSIONS: usize = 1_231;

/// How many expressions one definition has.
const TOGETHER: usize = 12;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition(name: &str, expressions: &[&str]) -> Value {
    let rules: Vec<Value> =
        expressions.iter().map(|e| json!({"rule": "false", "messageExpression": e})).collect();
    let short = json!({"type": "string", "maxLength": 10});
    let spec = json!({
        "s": {"type": "string", "maxLength": 50}, "i": {"type": "integer"}, "d": {"type": "number"},
        "b": {"type": "boolean"}, "l": {"type": "array", "maxItems": 5, "items": short},
        "li": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
        "m": {"type": "object", "maxProperties": 5, "additionalProperties": short},
        "o": {"type": "object", "properties": {"x": {"type": "string"}}},
        "ts": {"type": "string", "format": "date-time"}, "dur": {"type": "string", "format": "duration"},
        "by": {"type": "string", "format": "byte", "maxLength": 20}, "q": {"x-kubernetes-int-or-string": true},
        "k-e-y": {"type": "string", "maxLength": 5},
    });
    let kind = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{name}s.cel.example.com")},
        "spec": {
            "group": "cel.example.com", "scope": "Cluster", "names": {"plural": format!("{name}s"), "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {
                    "spec": {"type": "object", "properties": spec, "x-kubernetes-validations": rules},
                },
            }}}],
        },
    })
}

fn object(kind: &Value) -> Value {
    json!({
        "apiVersion": "cel.example.com/v1", "kind": kind, "metadata": {"name": "a"},
        "spec": {
            "s": "hello", "i": 7, "d": 2.0, "b": true, "l": ["a", "bb"], "li": [4, 2, 3],
            "m": {"a": "x", "b": "y"}, "o": {}, "ts": "2026-07-04T05:06:07Z", "dur": "1h2m3s", "by": "YWJj", "q": 5,
            "k-e-y": "v",
        },
    })
}

/// What a cause says of the expression: nothing, where it failed and the message is the default.
fn message(cause: &Value) -> Value {
    let text = cause["message"].as_str().unwrap_or_default();
    let text = text.strip_prefix("Invalid value: ").unwrap_or(text);
    match text {
        "failed rule: false" => Value::Null,
        said => json!(said),
    }
}

/// What the server makes of the expressions, in the form of the recording.
async fn made_of(rows: &[Value]) -> Vec<Value> {
    let house = House::new().await;
    let mut here = Vec::new();
    for row in rows {
        let expression = row["expr"].as_str().unwrap();
        let (code, _) = house
            .ask("POST", &format!("{DEFINITIONS}?dryRun=All"), Some(definition("probe", &[expression])))
            .await;
        here.push(json!({"expr": expression, "compiles": code == 201, "value": null}));
    }
    let compiled: Vec<usize> = (0..here.len()).filter(|index| here[*index]["compiles"] == true).collect();
    for (number, part) in compiled.chunks(TOGETHER).enumerate() {
        let name = format!("c{number}x");
        let expressions: Vec<&str> =
            part.iter().map(|index| rows[*index]["expr"].as_str().unwrap()).collect();
        let definition = definition(&name, &expressions);
        let (code, _) = house.ask("POST", DEFINITIONS, Some(definition.clone())).await;
        if code != 201 {
            part.iter().for_each(|index| here[*index]["value"] = json!("<cost>"));
            continue;
        }
        let object = object(&definition["spec"]["names"]["kind"]);
        let path = format!("/apis/cel.example.com/v1/{name}s?dryRun=All");
        let answer = loop {
            let (code, answer) = house.ask("POST", &path, Some(object.clone())).await;
            if !matches!(code, 404 | 405 | 429) {
                break answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        };
        let causes = answer.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
        for (index, cause) in part.iter().zip(causes) {
            here[*index]["value"] = message(cause);
        }
        house.ask("DELETE", &format!("{DEFINITIONS}/{name}s.cel.example.com"), None).await;
    }
    here
}

#[test]
fn expressions_give_what_was_recorded() {
    let rows = testdata::expressions();
    let halves: Vec<&[Value]> = rows.chunks(rows.len().div_ceil(2)).collect();
    let here: Vec<Value> = side_by_side(halves, made_of).into_iter().flatten().collect();
    let apart = rows.iter().zip(&here).filter(|(recorded, here)| recorded != here);
    let differences: Vec<Difference> = apart
        .map(|(recorded, here)| {
            let said = |row: &Value| format!("{} {}", row["compiles"], row["value"]);
            let kind = format!("{}: recorded {}, here {}", recorded["expr"], said(recorded), said(here));
            Difference { kind, all: json!({"recorded": recorded, "here": here}) }
        })
        .collect();
    let alike = rows.len() - differences.len();
    hold("cel", &[("expressions", alike, EXPRESSIONS)], rows.len(), &differences);
}
