//! `autoscaling/v1`, and what becomes of it: what it has no field for stands in annotations, as upstream's
//! conversion leaves it (`pkg/apis/autoscaling/v1/conversion.go`).

use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object, Resource};
use serde_json::{Map, Value, json};

use super::{annotations, behavior, table, validation};
use crate::kinds::workload::set_default;
use crate::kinds::{resource, resource_of_kind};

/// `autoscaling/v1`.
pub(crate) struct FirstAutoscaler;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Annotations that are part of the spec, and of the status.
const OF_SPEC: [&str; 2] = [METRICS, BEHAVIOR];
const OF_STATUS: [&str; 2] = [CURRENT_METRICS, CONDITIONS];

impl Rules for FirstAutoscaler {
    fn stored_as(&self) -> Option<&'static Resource> {
        resource("autoscaling", "v2", "horizontalpodautoscalers")
    }

    fn in_version(&self, api_version: &str) -> Option<&'static Resource> {
        resource_of_kind(api_version, "HorizontalPodAutoscaler")
    }

    fn to_stored(&self, object: &mut Object) {
        convert(object);
        behavior::set_defaults(object.0.get_mut("spec").and_then(|spec| spec.get_mut("behavior")));
    }

    fn to_served(&self, object: &mut Object) {
        object.0.insert("apiVersion".into(), "autoscaling/v1".into());
        let utilization = "/resource/target/averageUtilization";
        let of_cpu = |metric: &Value, pointer: &str| {
            let is_cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
            metric.pointer(pointer).filter(|percent| is_cpu && !percent.is_null()).cloned()
        };
        if let Some(Value::Array(mut list)) = take(object, "spec", "metrics") {
            if let Some(percent) = list.iter().find_map(|metric| of_cpu(metric, utilization)) {
                part_mut(object, "spec", |spec| {
                    spec.insert("targetCPUUtilizationPercentage".into(), percent);
                });
            }
            list.retain(|metric| of_cpu(metric, utilization).is_none());
            if !list.is_empty() {
                put_annotation(object, METRICS, annotations::metrics_as_text(&list));
            }
        }
        if let Some(behavior) = take(object, "spec", "behavior") {
            put_annotation(object, BEHAVIOR, annotations::behavior_as_text(&behavior));
        }
        if let Some(Value::Array(list)) = take(object, "status", "currentMetrics") {
            let now = "/resource/current/averageUtilization";
            if let Some(percent) = list.iter().find_map(|metric| of_cpu(metric, now)) {
                part_mut(object, "status", |status| {
                    status.insert("currentCPUUtilizationPercentage".into(), percent);
                });
            }
            // The share alone doesn't tell the amount, so that of the processor stands in both.
            if !list.is_empty() {
                put_annotation(object, CURRENT_METRICS, annotations::current_metrics_as_text(&list));
            }
        }
        if let Some(Value::Array(list)) = take(object, "status", "conditions")
            && !list.is_empty()
        {
            put_annotation(object, CONDITIONS, Value::Array(list).to_string());
        }
    }

    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "minReplicas", 1.into());
        let by_annotation = object.meta("annotations").is_some_and(|all| !all[METRICS].is_null());
        if !by_annotation {
            set_default(object, "targetCPUUtilizationPercentage", 80.into());
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
        OF_STATUS.into_iter().for_each(|annotation| _ = take_annotation(object, annotation));
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        let theirs = if subresource == "status" { OF_SPEC } else { OF_STATUS };
        for annotation in theirs {
            take_annotation(object, annotation);
            let before = old.meta("annotations").and_then(|all| all[annotation].as_str());
            if let Some(before) = before {
                put_annotation(object, annotation, before.to_owned());
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        if spec["targetCPUUtilizationPercentage"].as_i64().is_some_and(|percent| percent < 1) {
            let value = &spec["targetCPUUtilizationPercentage"];
            let path = "spec.metrics[0].resource.target.averageUtilization";
            faults.push(Cause::invalid(path, value, "must be greater than 0"));
        }
        let mut stored = object.clone();
        convert(&mut stored);
        let mut others = Faults::default();
        validation::validate(stored.0.get("spec").unwrap_or(&null), &mut others);
        others.retain(|fault| !faults.iter().any(|known| known.field == fault.field));
        faults.append(others);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        validation::validate_versions(object, None, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validation::validate_versions(object, Some(old), faults);
        if subresource == "status" {
            validation::validate_status(object, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let mut stored = object.clone();
        self.to_stored(&mut stored);
        table::cells(&stored, now)
    }
}

fn part_mut(object: &mut Object, part: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Value::Object(part) = object.0.entry(part).or_insert_with(|| json!({})) {
        change(part);
    }
}

fn take(object: &mut Object, part: &str, field: &str) -> Option<Value> {
    object.0.get_mut(part)?.as_object_mut()?.remove(field).filter(|value| !value.is_null())
}

/// Takes an annotation away.
fn take_annotation(object: &mut Object, annotation: &str) -> Option<String> {
    let annotations = object.metadata_mut().get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(annotation);
    if annotations.is_empty() {
        object.remove_meta("annotations");
    }
    Some(text?.as_str()?.to_owned())
}

fn put_annotation(object: &mut Object, annotation: &str, text: String) {
    let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(annotation.to_owned(), text.into());
    }
}

/// Into v2, without its defaults.
fn convert(object: &mut Object) {
    object.0.insert("apiVersion".into(), "autoscaling/v2".into());
    // What stands in the annotation comes first, upstream too.
    let mut metrics = take_annotation(object, METRICS)
        .and_then(|text| annotations::metrics_from(&text))
        .unwrap_or_default();
    if let Some(percent) = take(object, "spec", "targetCPUUtilizationPercentage") {
        let target = json!({ "type": "Utilization", "averageUtilization": percent });
        metrics.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
    }
    if !metrics.is_empty() {
        part_mut(object, "spec", |spec| _ = spec.insert("metrics".into(), metrics.into()));
    }
    let behavior = take_annotation(object, BEHAVIOR).and_then(|text| annotations::behavior_from(&text));
    if let Some(behavior) = behavior {
        part_mut(object, "spec", |spec| _ = spec.insert("behavior".into(), behavior));
    }

    let percent = take(object, "status", "currentCPUUtilizationPercentage");
    let mut current: Vec<Value> = percent
        .map(|percent| json!({ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": percent } } }))
        .into_iter()
        .collect();
    let told =
        take_annotation(object, CURRENT_METRICS).and_then(|text| annotations::current_metrics_from(&text));
    if let Some(told) = told {
        // It says more than the percentage.
        current = told;
    }
    let conditions = take_annotation(object, CONDITIONS).and_then(|text| annotations::conditions_from(&text));
    let current = if current.is_empty() { Value::Null } else { current.into() };
    part_mut(object, "status", |status| {
        status.insert("currentMetrics".into(), current);
        if let Some(conditions) = conditions.filter(|list| !list.is_empty()) {
            status.insert("conditions".into(), conditions.into());
        }
        if status.get("currentReplicas").is_some_and(|count| count == 0) {
            status.remove("currentReplicas");
        }
    });
}
