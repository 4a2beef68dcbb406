//! The table of autoscalers.

use machinery::Object;
use machinery::rules::{Column, age, number, text};
use serde_json::{Value, json};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Reference"),
    Column::text("Targets"),
    Column::text("MinPods"),
    Column::text("MaxPods"),
    Column::text("Replicas"),
    Column::text("Age"),
];

/// How many metrics a cell shows.
const SHOWN: usize = 2;

pub(super) fn cells(object: &Object, now: i64) -> Vec<Value> {
    let reference = text(object, "/spec/scaleTargetRef/kind").to_owned();
    let least = object.pointer("/spec/minReplicas").and_then(Value::as_i64);
    vec![
        json!(object.name()),
        format!("{reference}/{}", text(object, "/spec/scaleTargetRef/name")).into(),
        targets(object).into(),
        least.map_or_else(|| "<unset>".to_owned(), |least| least.to_string()).into(),
        number(object, "/spec/maxReplicas").into(),
        number(object, "/status/currentReplicas").into(),
        age(object, now),
    ]
}

fn targets(object: &Object) -> String {
    let list =
        |pointer: &str| object.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let (specs, statuses) = (list("/spec/metrics"), list("/status/currentMetrics"));
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let none = Value::Null;
    let mut shown: Vec<String> = specs
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(index, spec)| target(spec, statuses.get(index).unwrap_or(&none)))
        .collect();
    if specs.len() > SHOWN {
        let more = format!("{} + {} more...", shown.join(", "), specs.len() - SHOWN);
        shown = vec![more];
    }
    shown.join(", ")
}

/// `cpu: <unknown>/80%`
fn target(spec: &Value, status: &Value) -> String {
    let field = match spec["type"].as_str().unwrap_or_default() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, current) = (&spec[field]["target"], &status[field]["current"]);
    let amount = |value: &Value| value.as_str().map(str::to_owned);
    let unknown = || "<unknown>".to_owned();
    let prefix = match field {
        "resource" | "containerResource" => format!("{}: ", spec[field]["name"].as_str().unwrap_or_default()),
        _ => String::new(),
    };
    if let Some(percent) = wanted["averageUtilization"].as_i64() {
        let now =
            current["averageUtilization"].as_i64().map_or_else(unknown, |percent| format!("{percent}%"));
        return format!("{prefix}{now}/{percent}%");
    }
    if let Some(average) = amount(&wanted["averageValue"]) {
        let now = amount(&current["averageValue"]).unwrap_or_else(unknown);
        let tail = if matches!(field, "external" | "object") { " (avg)" } else { "" };
        return format!("{prefix}{now}/{average}{tail}");
    }
    let wanted = amount(&wanted["value"]).unwrap_or_else(|| "<auto>".to_owned());
    format!("{prefix}{}/{wanted}", amount(&current["value"]).unwrap_or_else(unknown))
}
