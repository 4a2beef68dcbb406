//! Faults of an autoscaler: `pkg/apis/autoscaling/validation` upstream.

use cel::Quantity;
use serde_json::Value;

use super::behavior;
use crate::faults::Faults;
use crate::kinds::workload::{validate_selector, validate_value_not_negative};
use crate::object::Object;
use crate::status::Cause;

/// The kinds of metrics, their fields, and the targets that each may have.
const METRICS: [(&str, &str, &[&str]); 5] = [
    ("ContainerResource", "containerResource", &["Utilization", "AverageValue"]),
    ("External", "external", &["Value", "AverageValue"]),
    ("Object", "object", &["Value", "AverageValue"]),
    ("Pods", "pods", &["AverageValue"]),
    ("Resource", "resource", &["Utilization", "AverageValue"]),
];

pub(super) fn validate(spec: &Value, faults: &mut Faults) {
    let number = |field: &str| spec[field].as_i64();
    if number("minReplicas").is_some_and(|least| least < 1) {
        let why = "must be greater than or equal to 1";
        faults.push(Cause::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    if number("maxReplicas").is_none_or(|most| most < 1) {
        faults.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
    }
    if number("minReplicas").zip(number("maxReplicas")).is_some_and(|(least, most)| most < least) {
        let why = "must be greater than or equal to `minReplicas`";
        faults.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    }
    validate_reference(&spec["scaleTargetRef"], "spec.scaleTargetRef", faults);
    let metrics = spec["metrics"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, metric) in metrics.iter().enumerate() {
        validate_metric(metric, &format!("spec.metrics[{index}]"), faults);
    }
    behavior::validate(&spec["behavior"], "spec.behavior", faults);
}

pub(super) fn validate_status(object: &Object, faults: &mut Faults) {
    for field in ["currentReplicas", "desiredReplicas"] {
        let value = object.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null);
        validate_value_not_negative(value, format!("status.{field}"), faults);
    }
}

/// What is scaled or measured.
pub(super) fn validate_reference(reference: &Value, path: &str, faults: &mut Faults) {
    for field in ["kind", "name"] {
        match reference[field].as_str().unwrap_or_default() {
            "" => faults.push(Cause::required(format!("{path}.{field}"), "")),
            text if matches!(text, "." | "..") || text.contains(['/', '%']) => {
                let why = "must be a segment of a path";
                faults.push(Cause::invalid(format!("{path}.{field}"), &reference[field], why));
            }
            _ => {}
        }
    }
}

fn validate_metric(metric: &Value, path: &str, faults: &mut Faults) {
    let kind = &metric["type"];
    let name = kind.as_str().unwrap_or_default();
    let Some((_, field, targets)) = METRICS.iter().find(|(known, ..)| *known == name) else {
        return match name {
            "" => faults.push(Cause::required(format!("{path}.type"), "must specify a metric source type")),
            _ => faults.push(Cause::not_supported(format!("{path}.type"), kind, &METRICS.map(|(k, ..)| k))),
        };
    };
    for (_, other, _) in
        METRICS.iter().filter(|(known, other, _)| known != &name && !metric[*other].is_null())
    {
        let why = "must populate the given metric source only";
        faults.push(Cause::forbidden(format!("{path}.{other}"), why));
    }
    let (source, path) = (&metric[*field], format!("{path}.{field}"));
    if source.is_null() {
        let why = "must populate information for the given metric source";
        return faults.push(Cause::required(path, why));
    }
    let mut needed = |value: &Value, field: &str, why: &str| {
        if value.as_str().unwrap_or_default().is_empty() {
            faults.push(Cause::required(format!("{path}.{field}"), why));
        }
    };
    match name {
        "Resource" => needed(&source["name"], "name", "must specify a resource name"),
        "ContainerResource" => {
            needed(&source["name"], "name", "must specify a resource name");
            needed(&source["container"], "container", "must specify a container name");
        }
        _ => needed(&source["metric"]["name"], "metric.name", "must specify a metric name"),
    }
    if name == "Object" {
        validate_reference(&source["describedObject"], &format!("{path}.describedObject"), faults);
    }
    if source["metric"]["selector"].is_object() {
        validate_selector(&source["metric"]["selector"], &format!("{path}.metric.selector"), faults);
    }
    validate_target(&source["target"], targets, &format!("{path}.target"), faults);
}

fn validate_target(target: &Value, targets: &[&str], path: &str, faults: &mut Faults) {
    let kind = target["type"].as_str().unwrap_or_default();
    match kind {
        "" => faults.push(Cause::required(format!("{path}.type"), "must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        _ => {
            let why = "must be either Utilization, Value, or AverageValue";
            faults.push(Cause::invalid(format!("{path}.type"), &target["type"], why));
        }
    }
    for field in ["value", "averageValue"] {
        let amount = target[field].as_str().and_then(|text| Quantity::parse(text).ok());
        if amount.is_some_and(|amount| amount <= Quantity::from_units(0)) {
            faults.push(Cause::invalid(format!("{path}.{field}"), &target[field], "must be positive"));
        }
    }
    if target["averageUtilization"].as_i64().is_some_and(|percent| percent < 1) {
        let why = "must be greater than 0";
        faults.push(Cause::invalid(format!("{path}.averageUtilization"), &target["averageUtilization"], why));
    }
    let fields =
        [("Utilization", "averageUtilization"), ("AverageValue", "averageValue"), ("Value", "value")];
    let mut set = fields.iter().filter(|(kind, field)| targets.contains(kind) && !target[*field].is_null());
    match (set.next(), set.next()) {
        (None, _) => {
            let (_, field) = fields.iter().find(|(kind, _)| targets.contains(kind)).unwrap_or(&fields[1]);
            let why = "must set a target value, an average or a utilization";
            faults.push(Cause::required(format!("{path}.{field}"), why));
        }
        (Some(_), Some((_, field))) => {
            let why = "may not set more than one of the targets";
            faults.push(Cause::forbidden(format!("{path}.{field}"), why));
        }
        _ => {}
    }
}
