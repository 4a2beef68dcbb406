//! `autoscaling/v1`, and what becomes of it: what it has no field for stands in annotations, as upstream's
//! conversion leaves it (`pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::{Map, Value, json};

use super::{table, validation};
use crate::faults::Faults;
use crate::kinds::rules::{Column, Rules};
use crate::kinds::workload::set_default;
use crate::object::Object;
use crate::status::Cause;

/// `autoscaling/v1`.
pub(crate) struct FirstAutoscaler;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What v1 says in annotations: the annotation, and the JSON pointer of the list or object in v2.
const ANNOTATIONS: [(&str, &str, &str); 4] = [
    (METRICS, "spec", "metrics"),
    (CURRENT_METRICS, "status", "currentMetrics"),
    (CONDITIONS, "status", "conditions"),
    (BEHAVIOR, "spec", "behavior"),
];

impl Rules for FirstAutoscaler {
    fn stored_as(&self) -> Option<(&'static str, &'static str, &'static str)> {
        Some(("autoscaling", "v2", "horizontalpodautoscalers"))
    }

    fn to_stored(&self, object: &mut Object) {
        object.0.insert("apiVersion".into(), "autoscaling/v2".into());
        let mut metrics = Vec::new();
        if let Some(percent) = take(object, "spec", "targetCPUUtilizationPercentage") {
            let target = json!({ "type": "Utilization", "averageUtilization": percent });
            metrics.push(json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
        }
        let mut current = Vec::new();
        if let Some(percent) = take(object, "status", "currentCPUUtilizationPercentage") {
            let now = json!({ "averageUtilization": percent });
            current.push(json!({ "type": "Resource", "resource": { "name": "cpu", "current": now } }));
        }
        for (annotation, part, field) in ANNOTATIONS {
            let Some(value) = take_annotation(object, annotation) else { continue };
            match (field, value) {
                ("metrics", Value::Array(more)) => metrics.extend(more),
                ("currentMetrics", Value::Array(more)) => current.extend(more),
                (_, value) => part_mut(object, part, |part| _ = part.insert(field.into(), value)),
            }
        }
        if !metrics.is_empty() {
            part_mut(object, "spec", |spec| _ = spec.insert("metrics".into(), metrics.into()));
        }
        let current = if current.is_empty() { Value::Null } else { current.into() };
        part_mut(object, "status", |status| {
            status.insert("currentMetrics".into(), current);
            if status.get("currentReplicas").is_some_and(|count| count == 0) {
                status.remove("currentReplicas");
            }
        });
    }

    fn to_served(&self, object: &mut Object) {
        object.0.insert("apiVersion".into(), "autoscaling/v1".into());
        let is_cpu = |metric: &Value| metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
        for (annotation, part, field) in ANNOTATIONS {
            let Some(value) = take(object, part, field) else { continue };
            let Value::Array(mut list) = value else {
                put_annotation(object, annotation, &value);
                continue;
            };
            let (name, pointer) = match field {
                "metrics" => ("targetCPUUtilizationPercentage", "/resource/target/averageUtilization"),
                _ => ("currentCPUUtilizationPercentage", "/resource/current/averageUtilization"),
            };
            if field != "conditions" {
                let at = list.iter().position(|metric| is_cpu(metric) && metric.pointer(pointer).is_some());
                if let Some(percent) = at.and_then(|at| list.remove(at).pointer(pointer).cloned()) {
                    part_mut(object, part, |part| _ = part.insert(name.into(), percent));
                }
            }
            if !list.is_empty() {
                put_annotation(object, annotation, &list.into());
            }
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
        self.to_stored(&mut stored);
        let mut others = Faults::default();
        validation::validate(stored.0.get("spec").unwrap_or(&null), &mut others);
        others.retain(|fault| !faults.iter().any(|known| known.field == fault.field));
        faults.append(others);
    }

    fn validate_update(&self, subresource: &str, object: &Object, _old: &Object, faults: &mut Faults) {
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

/// Takes the JSON out of an annotation; nothing, and the annotation gone, if it is none.
fn take_annotation(object: &mut Object, annotation: &str) -> Option<Value> {
    let annotations = object.metadata_mut().get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(annotation);
    if annotations.is_empty() {
        object.remove_meta("annotations");
    }
    serde_json::from_str(text?.as_str()?).ok()
}

fn put_annotation(object: &mut Object, annotation: &str, value: &Value) {
    let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(annotation.to_owned(), value.to_string().into());
    }
}
