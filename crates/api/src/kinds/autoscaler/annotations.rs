//! What `autoscaling/v1` says in annotations, in its own words: metrics are v1's `MetricSpec` and `MetricStatus`, and the
//! behavior is written as upstream writes it, which is by the names that the fields have in Go.
//!
//! Follows `pkg/apis/autoscaling/v1/conversion.go` and `k8s.io/api/autoscaling/v1` upstream. What can't be read is nothing.

use machinery::Conform;
use serde_json::{Map, Value, json};

use crate::schemas::schemas;

/// A kind of metric: its type, the field that describes it, and the fields of that in v1 with their places in v2.
type Kind = (&'static str, &'static str, &'static [Field]);
/// A field in v1, its place in v2, and whether v1 always has it.
type Field = (&'static str, &'static [&'static str], Always);

#[derive(Clone, Copy, PartialEq)]
enum Always {
    No,
    Text,
    Amount,
}

const SELECTOR: Field = ("selector", &["metric", "selector"], Always::No);
const METRIC: Field = ("metricName", &["metric", "name"], Always::Text);
const NAME: Field = ("name", &["name"], Always::Text);
const CONTAINER: Field = ("container", &["container"], Always::Text);
const DESCRIBED: Field = ("target", &["describedObject"], Always::No);

const SPECS: [Kind; 5] = [
    ("Resource", "resource", &[NAME, UTILIZATION, AVERAGE]),
    ("ContainerResource", "containerResource", &[NAME, UTILIZATION, AVERAGE, CONTAINER]),
    (
        "Pods",
        "pods",
        &[METRIC, ("targetAverageValue", &["target", "averageValue"], Always::Amount), SELECTOR],
    ),
    (
        "Object",
        "object",
        &[
            DESCRIBED,
            METRIC,
            ("targetValue", &["target", "value"], Always::Amount),
            SELECTOR,
            ("averageValue", &["target", "averageValue"], Always::No),
        ],
    ),
    (
        "External",
        "external",
        &[
            METRIC,
            ("metricSelector", &["metric", "selector"], Always::No),
            ("targetValue", &["target", "value"], Always::No),
            AVERAGE,
        ],
    ),
];
const UTILIZATION: Field = ("targetAverageUtilization", &["target", "averageUtilization"], Always::No);
const AVERAGE: Field = ("targetAverageValue", &["target", "averageValue"], Always::No);

const STATUSES: [Kind; 5] = [
    ("Resource", "resource", &[NAME, NOW_UTILIZED, NOW_AVERAGE]),
    ("ContainerResource", "containerResource", &[NAME, NOW_UTILIZED, NOW_AVERAGE, CONTAINER]),
    ("Pods", "pods", &[METRIC, NOW_AVERAGE, SELECTOR]),
    (
        "Object",
        "object",
        &[
            DESCRIBED,
            METRIC,
            ("currentValue", &["current", "value"], Always::Amount),
            SELECTOR,
            ("averageValue", &["current", "averageValue"], Always::No),
        ],
    ),
    (
        "External",
        "external",
        &[
            METRIC,
            ("metricSelector", &["metric", "selector"], Always::No),
            ("currentValue", &["current", "value"], Always::Amount),
            ("currentAverageValue", &["current", "averageValue"], Always::No),
        ],
    ),
];
const NOW_UTILIZED: Field = ("currentAverageUtilization", &["current", "averageUtilization"], Always::No);
const NOW_AVERAGE: Field = ("currentAverageValue", &["current", "averageValue"], Always::Amount);

/// The fields of a behavior in v2; Go's names begin with a capital.
const OF_BEHAVIOR: [&str; 9] = [
    "scaleUp",
    "scaleDown",
    "stabilizationWindowSeconds",
    "selectPolicy",
    "policies",
    "tolerance",
    "type",
    "value",
    "periodSeconds",
];

/// Metrics that v1's annotation asks for, as v2 says them.
pub(super) fn metrics_from(text: &str) -> Option<Vec<Value>> {
    metrics(text, &SPECS, "io.k8s.api.autoscaling.v2.MetricSpec", |kind, source| {
        let has = |source: &Map<String, Value>, field: &str| {
            source.get("target").is_some_and(|target| !target[field].is_null())
        };
        let target = match kind {
            "Resource" | "ContainerResource" if has(source, "averageUtilization") => "Utilization",
            "Object" | "External" if !has(source, "averageValue") => "Value",
            _ => "AverageValue",
        };
        put(source, &["target", "type"], target.into());
    })
}

/// Metrics that v1's annotation tells of, as v2 says them.
pub(super) fn current_metrics_from(text: &str) -> Option<Vec<Value>> {
    metrics(text, &STATUSES, "io.k8s.api.autoscaling.v2.MetricStatus", |_, source| {
        source.entry("current").or_insert_with(|| json!({}));
    })
}

/// v1's annotation of metrics.
pub(super) fn metrics_as_text(metrics: &[Value]) -> String {
    as_text(metrics, &SPECS)
}

/// v1's annotation of what metrics are now.
pub(super) fn current_metrics_as_text(metrics: &[Value]) -> String {
    as_text(metrics, &STATUSES)
}

/// Conditions have the same form in both.
pub(super) fn conditions_from(text: &str) -> Option<Vec<Value>> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    list.into_iter()
        .map(|item| conforming("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerCondition", item))
        .collect()
}

/// The behavior in v1's annotation, as v2 says it.
pub(super) fn behavior_from(text: &str) -> Option<Value> {
    let behavior = conforming(
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior",
        in_small(serde_json::from_str(text).ok()?),
    )?;
    behavior.as_object().is_some_and(|map| !map.is_empty()).then_some(behavior)
}

/// v1's annotation of a behavior.
pub(super) fn behavior_as_text(behavior: &Value) -> String {
    let rules = |rules: &Value| match rules {
        Value::Null => Value::Null,
        rules => json!({
            "StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
            "SelectPolicy": rules["selectPolicy"],
            "Policies": rules["policies"].as_array().map(|list| list.iter().map(|policy| json!({
                "Type": policy["type"], "Value": policy["value"], "PeriodSeconds": policy["periodSeconds"],
            })).collect::<Vec<_>>()),
            "Tolerance": rules["tolerance"],
        }),
    };
    json!({ "ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"]) }).to_string()
}

fn metrics(
    text: &str,
    kinds: &[Kind],
    schema: &str,
    complete: impl Fn(&str, &mut Map<String, Value>),
) -> Option<Vec<Value>> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).ok()?;
    let one = |given: Map<String, Value>| {
        let mut metric = Map::new();
        metric.insert("type".into(), named(&given, "type").cloned().unwrap_or_else(|| "".into()));
        for (kind, name, fields) in kinds {
            let Some(given) = named(&given, name) else { continue };
            let mut source = Map::new();
            for (field, place, always) in *fields {
                match (named(given.as_object()?, field), always) {
                    (Some(value), _) => put(&mut source, place, value.clone()),
                    (None, Always::Amount) => put(&mut source, place, "0".into()),
                    (None, _) => {}
                }
            }
            complete(kind, &mut source);
            metric.insert((*name).into(), source.into());
        }
        conforming(schema, metric.into())
    };
    list.into_iter().map(one).collect()
}

fn as_text(metrics: &[Value], kinds: &[Kind]) -> String {
    let one = |metric: &Value| {
        let mut told = Map::new();
        told.insert("type".into(), metric["type"].clone());
        for (_, name, fields) in kinds.iter().filter(|(_, name, _)| metric[*name].is_object()) {
            let mut source = Map::new();
            for (field, place, always) in *fields {
                let value = place.iter().fold(&metric[*name], |value, part| &value[*part]);
                match (value.is_null(), always) {
                    (false, _) => _ = source.insert((*field).into(), value.clone()),
                    (true, Always::Text) => _ = source.insert((*field).into(), "".into()),
                    (true, Always::Amount) => _ = source.insert((*field).into(), "0".into()),
                    (true, Always::No) => {}
                }
            }
            told.insert((*name).into(), source.into());
        }
        Value::Object(told)
    };
    metrics.iter().map(one).collect::<Value>().to_string()
}

/// A field as Go finds it: by its name, or else by one that differs in capitals alone.
fn named<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let alike = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    map.get(name).or_else(alike).filter(|value| !value.is_null())
}

fn put(map: &mut Map<String, Value>, place: &[&str], value: Value) {
    match place {
        [] => {}
        [last] => _ = map.insert((*last).into(), value),
        [first, rest @ ..] => {
            if let Value::Object(inner) = map.entry(*first).or_insert_with(|| json!({})) {
                put(inner, rest, value);
            }
        }
    }
}

/// The fields of a behavior under v2's names, without those that are none.
fn in_small(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(in_small).collect(),
        Value::Object(map) => {
            let fields = OF_BEHAVIOR.iter().filter_map(|name| {
                let value = named(&map, name)?;
                Some(((*name).to_owned(), in_small(value.clone())))
            });
            Value::Object(fields.collect())
        }
        scalar => scalar,
    }
}

/// The value in its canonical form; nothing if it doesn't fit the schema.
fn conforming(schema: &str, mut value: Value) -> Option<Value> {
    let (mut faults, schema) = (Vec::new(), schemas().named(schema)?);
    Conform::new(&mut faults, 0).object(schema, value.as_object_mut()?).ok()?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_said_in_the_words_of_both_versions() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let of = json!({"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"});
        for (first, second) in [
            (
                json!({"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}}),
                json!({"type": "Resource", "resource": {"name": "memory",
                    "target": {"type": "Utilization", "averageUtilization": 70}}}),
            ),
            (
                json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "100Mi"}}),
                json!({"type": "Resource", "resource": {"name": "memory",
                    "target": {"type": "AverageValue", "averageValue": "100Mi"}}}),
            ),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                    "targetAverageUtilization": 5}}),
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 5}}}),
            ),
            (
                json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "5", "selector": selector}}),
                json!({"type": "Pods", "pods": {"metric": {"name": "rps", "selector": selector},
                    "target": {"type": "AverageValue", "averageValue": "5"}}}),
            ),
            (
                json!({"type": "Object", "object": {"target": of, "metricName": "rps", "targetValue": "2k"}}),
                json!({"type": "Object", "object": {"describedObject": of, "metric": {"name": "rps"},
                    "target": {"type": "Value", "value": "2k"}}}),
            ),
            (
                json!({"type": "External", "external": {"metricName": "q", "metricSelector": selector, "targetValue": "3"}}),
                json!({"type": "External", "external": {"metric": {"name": "q", "selector": selector},
                    "target": {"type": "Value", "value": "3"}}}),
            ),
            (
                json!({"type": "External", "external": {"metricName": "q", "targetAverageValue": "3"}}),
                json!({"type": "External", "external": {"metric": {"name": "q"},
                    "target": {"type": "AverageValue", "averageValue": "3"}}}),
            ),
        ] {
            let text = json!([first]).to_string();
            assert_eq!(metrics_from(&text), Some(vec![second.clone()]), "{first}");
            let told: Value = serde_json::from_str(&metrics_as_text(&[second])).unwrap();
            assert_eq!(told, json!([first]));
        }
    }

    #[test]
    fn what_metrics_are_now_is_said_in_the_words_of_both_versions() {
        for (first, second) in [
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 7, "currentAverageValue": "70m"}}),
                json!({"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 7, "averageValue": "70m"}}}),
            ),
            (
                json!({"type": "Pods", "pods": {"metricName": "rps", "currentAverageValue": "5"}}),
                json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "5"}}}),
            ),
            (
                json!({"type": "External", "external": {"metricName": "q", "currentValue": "0", "currentAverageValue": "3"}}),
                json!({"type": "External", "external": {"metric": {"name": "q"},
                    "current": {"value": "0", "averageValue": "3"}}}),
            ),
        ] {
            let text = json!([first]).to_string();
            assert_eq!(current_metrics_from(&text), Some(vec![second.clone()]), "{first}");
            let told: Value = serde_json::from_str(&current_metrics_as_text(&[second])).unwrap();
            assert_eq!(told, json!([first]));
        }
    }

    #[test]
    fn what_cannot_be_read_is_nothing_and_what_is_unknown_is_left_out() {
        for wrong in [
            "",
            "{}",
            "[1]",
            r#"[{"type":"Resource","resource":{"name":"m","targetAverageUtilization":"x"}}]"#,
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"much"}}]"#,
            r#"[{"type":"Pods","pods":[]}]"#,
        ] {
            assert_eq!(metrics_from(wrong), None, "{wrong}");
        }
        // The words of v2 mean nothing here, and capitals don't matter.
        let odd = r#"[{"Type":"Resource","RESOURCE":{"name":"m","target":{"averageValue":"1"},"x":1}}]"#;
        let read = json!({"type": "Resource", "resource": {"name": "m", "target": {"type": "AverageValue"}}});
        assert_eq!(metrics_from(odd), Some(vec![read]));
        assert_eq!(
            conditions_from(r#"[{"type":"AbleToScale","status":"True","odd":1}]"#).unwrap()[0].get("odd"),
            None
        );
        assert_eq!(conditions_from(r#"[{"type":5}]"#), None);
    }

    #[test]
    fn a_behavior_is_written_as_upstream_writes_it() {
        let second = json!({"scaleDown": {"stabilizationWindowSeconds": 33, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}]}});
        let rules = json!({"StabilizationWindowSeconds": 33, "SelectPolicy": "Max", "Tolerance": null,
            "Policies": [{"Type": "Percent", "Value": 50, "PeriodSeconds": 15}]});
        let told: Value = serde_json::from_str(&behavior_as_text(&second)).unwrap();
        assert_eq!(told, json!({"ScaleUp": null, "ScaleDown": rules}));
        assert_eq!(behavior_from(&told.to_string()), Some(second.clone()));
        assert_eq!(behavior_from(&second.to_string()), Some(second), "capitals don't matter");
        for nothing in
            ["{}", "null", "[]", r#"{"ScaleUp":null}"#, r#"{"scaleUp":{"policies":"x"}}"#, r#"{"odd":1}"#]
        {
            assert_eq!(behavior_from(nothing), None, "{nothing}");
        }
    }
}
