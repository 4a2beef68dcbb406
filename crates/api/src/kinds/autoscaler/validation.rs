//! Faults of an autoscaler: `pkg/apis/autoscaling/validation` upstream.

use cel::Quantity;
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::behavior;
use crate::kinds::field::{items, text};
use crate::kinds::workload::{validate_selector, validate_value_not_negative};

/// The kinds of metrics, their fields, and the targets that each may have.
const METRICS: [(&str, &str, &[&str]); 5] = [
    ("Object", "object", &["Value", "AverageValue"]),
    ("External", "external", &["Value", "AverageValue"]),
    ("Pods", "pods", &["AverageValue"]),
    ("Resource", "resource", &["Utilization", "AverageValue"]),
    ("ContainerResource", "containerResource", &["Utilization", "AverageValue"]),
];

pub(super) fn validate(spec: &Value, faults: &mut Faults) {
    let number = |field: &str| spec[field].as_i64();
    if number("minReplicas").is_some_and(|least| least < 1) {
        let why = "must be greater than or equal to 1";
        faults.push(Cause::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    let metrics = items(&spec["metrics"]);
    if number("minReplicas") == Some(0)
        && !metrics.iter().any(|metric| !metric["object"].is_null() || !metric["external"].is_null())
    {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        faults.push(Cause::forbidden("spec.metrics", why));
    }
    if number("maxReplicas").unwrap_or_default() == 0 {
        faults.push(Cause::required("spec.maxReplicas", "must be greater than 0"));
    } else if number("maxReplicas").is_none_or(|most| most < 1) {
        faults.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
    }
    if number("minReplicas").zip(number("maxReplicas")).is_some_and(|(least, most)| most < least) {
        let why = "must be greater than or equal to `minReplicas`";
        faults.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    }
    validate_reference(&spec["scaleTargetRef"], "spec.scaleTargetRef", faults);
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

/// The versions of what is scaled and of what is measured, where a write sets them: upstream leaves alone what an older
/// server took (`validationOptionsForHorizontalPodAutoscaler` in `pkg/registry/autoscaling`).
pub(super) fn validate_versions(object: &Object, old: Option<&Object>, faults: &mut Faults) {
    fn spec(object: &Object) -> &Value {
        object.0.get("spec").unwrap_or(&Value::Null)
    }
    fn objects(spec: &Value) -> impl Iterator<Item = (usize, &Value)> {
        let objects = items(&spec["metrics"]).iter().map(|metric| &metric["object"]["describedObject"]);
        objects.enumerate().filter(|(_, object)| object.is_object())
    }
    let target = &spec(object)["scaleTargetRef"];
    let before = old.map(|old| &spec(old)["scaleTargetRef"]);
    let same = |field: &str| before.is_some_and(|before| text(before, field) == text(target, field));
    if !(same("apiVersion") && same("kind")) {
        // The one kind of the core group that can be scaled.
        let core = text(target, "kind") == "ReplicationController";
        if let Some(why) = version_fault(text(target, "apiVersion"), core) {
            faults.push(Cause::invalid(
                "spec.scaleTargetRef.apiVersion",
                &text(target, "apiVersion").into(),
                &why,
            ));
        }
    }
    let broken = |object: &Value| version_fault(text(object, "apiVersion"), true);
    if old.is_some_and(|old| objects(spec(old)).any(|(_, object)| broken(object).is_some())) {
        return;
    }
    for (index, object) in objects(spec(object)) {
        if let Some(why) = broken(object) {
            let path = format!("spec.metrics[{index}].object.describedObject.apiVersion");
            faults.push(Cause::invalid(path, &text(object, "apiVersion").into(), &why));
        }
    }
}

/// What is wrong with a group and version; `core`: it may be the core group, which has no name.
fn version_fault(version: &str, core: bool) -> Option<String> {
    match version.split('/').collect::<Vec<_>>()[..] {
        [_, _, _, ..] => Some(format!("unexpected GroupVersion string: {version}")),
        [_] | ["", _] if !core => Some("apiVersion must specify API group".to_owned()),
        _ => None,
    }
}

/// One metric. Upstream looks at the first source that there is, whatever the metric calls itself.
fn validate_metric(metric: &Value, path: &str, faults: &mut Faults) {
    let kind = &metric["type"];
    let name = text(metric, "type");
    let given = METRICS.iter().filter(|(_, field, _)| !metric[*field].is_null());
    if let Some((own, field, targets)) = given.clone().next() {
        validate_source(own, &metric[*field], targets, &format!("{path}.{field}"), faults);
    }
    let known = METRICS.iter().find(|(known, ..)| *known == name);
    if name.is_empty() {
        faults.push(Cause::required(format!("{path}.type"), "must specify a metric source type"));
    }
    let Some((_, expected, _)) = known else {
        for _ in 0..2 {
            let kind = json!(kind.as_str().unwrap_or_default());
            faults.push(Cause::not_supported(format!("{path}.type"), &kind, &METRICS.map(|(k, ..)| k)));
        }
        let more = given.clone().count() > 1;
        for (_, field, _) in given.filter(|_| more) {
            let why = "must populate the given metric source only";
            faults.push(Cause::forbidden(format!("{path}.{field}"), why));
        }
        return;
    };
    if metric[*expected].is_null() {
        let why = "must populate information for the given metric source";
        faults.push(Cause::required(format!("{path}.{expected}"), why));
    }
    let more = given.clone().count() > 1;
    for (_, field, _) in given.filter(|(_, field, _)| more && field != expected) {
        let why = "must populate the given metric source only";
        faults.push(Cause::forbidden(format!("{path}.{field}"), why));
    }
}

fn validate_source(kind: &str, source: &Value, targets: &[&str], path: &str, faults: &mut Faults) {
    let mut needed = |value: &Value, field: &str, why: &str| {
        if value.as_str().unwrap_or_default().is_empty() {
            faults.push(Cause::required(format!("{path}.{field}"), why));
        }
    };
    match kind {
        "Resource" => needed(&source["name"], "name", "must specify a resource name"),
        "ContainerResource" => {
            needed(&source["name"], "name", "must specify a resource name");
            needed(&source["container"], "container", "must specify a container name");
        }
        _ => needed(&source["metric"]["name"], "metric.name", "must specify a metric name"),
    }
    if kind == "Object" {
        validate_reference(&source["describedObject"], &format!("{path}.describedObject"), faults);
    }
    if source["metric"]["selector"].is_object() {
        validate_selector(&source["metric"]["selector"], &format!("{path}.metric.selector"), faults);
    }
    validate_target(&source["target"], targets, &format!("{path}.target"), faults);
}

fn validate_target(target: &Value, targets: &[&str], path: &str, faults: &mut Faults) {
    let kind = target["type"].as_str().unwrap_or_default();
    if kind.is_empty() {
        faults.push(Cause::required(format!("{path}.type"), "must specify a metric target type"));
    }
    match kind {
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
