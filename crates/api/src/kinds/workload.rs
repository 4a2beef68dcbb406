//! What Deployment and ReplicaSet have in common: a selector, a pod template, a number.

use serde_json::{Value, json};

use super::pod::{set_pod_spec_defaults, validate_pod_spec};
use crate::object::Object;
use crate::selector::LabelSelector;
use crate::status::Cause;
use crate::validate::{validate_labels, validate_metadata};

pub(crate) fn set_template_defaults(object: &mut Object) {
    let template = object.0.get_mut("spec").and_then(|spec| spec.get_mut("template"));
    if let Some(spec) = template.and_then(|template| template.get_mut("spec")) {
        set_pod_spec_defaults(spec);
    }
}

pub(crate) fn set_default(object: &mut Object, field: &str, value: Value) {
    if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
        spec.entry(field).or_insert(value);
    }
}

/// A number of the spec that may not be below zero.
pub(crate) fn validate_not_negative(object: &Object, field: &str, faults: &mut Vec<Cause>) {
    if let Some(value) = object.pointer(&format!("/spec/{field}"))
        && value.as_i64().is_some_and(|number| number < 0)
    {
        faults.push(Cause::invalid(format!("spec.{field}"), value, "must be greater than or equal to 0"));
    }
}

/// Selector and template, which must fit each other.
pub(crate) fn validate_selector_and_template(object: &Object, kind: &str, faults: &mut Vec<Cause>) {
    let null = Value::Null;
    let selector = object.pointer("/spec/selector").unwrap_or(&null);
    let template = object.pointer("/spec/template").unwrap_or(&null);
    let parsed = LabelSelector::from_value(selector);
    if selector.is_null() {
        faults.push(Cause::required("spec.selector", ""));
    } else {
        validate_selector(selector, "spec.selector", faults);
        if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
            let why = format!("empty selector is invalid for {kind}");
            faults.push(Cause::invalid("spec.selector", selector, &why));
        }
    }
    let labels = &template["metadata"]["labels"];
    let fits = parsed.is_some_and(|selector| selector.matches_labels(|key| labels.get(key)?.as_str()));
    if !fits {
        let why = "`selector` does not match template `labels`";
        faults.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    validate_metadata(&template["metadata"], "spec.template.metadata", faults);
    validate_pod_spec(&template["spec"], "spec.template.spec", faults);
    let restart = &template["spec"]["restartPolicy"];
    if restart.as_str().is_some_and(|policy| policy != "Always") {
        faults.push(Cause::not_supported("spec.template.spec.restartPolicy", restart, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        faults.push(Cause::forbidden("spec.template.spec.activeDeadlineSeconds", &why));
    }
}

/// Keys, operators and values of a `LabelSelector`.
pub(crate) fn validate_selector(selector: &Value, path: &str, faults: &mut Vec<Cause>) {
    validate_labels(&selector["matchLabels"], &format!("{path}.matchLabels"), faults);
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = expression["values"].as_array().map_or(0, Vec::len);
        match expression["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                faults.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.push(Cause::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                faults.push(Cause::invalid(format!("{path}.operator"), &expression["operator"], why));
            }
        }
        let key = json!({ expression["key"].as_str().unwrap_or_default(): "" });
        validate_labels(&key, &format!("{path}.key"), faults);
    }
}

/// A selector says which pods belong to the object: it stays.
pub(crate) fn validate_selector_stays(object: &Object, old: &Object, faults: &mut Vec<Cause>) {
    let selector = object.pointer("/spec/selector");
    if selector != old.pointer("/spec/selector") {
        faults.push(Cause::invalid("spec.selector", selector.unwrap_or(&Value::Null), "field is immutable"));
    }
}

/// The cells of the wide columns `Containers`, `Images` and `Selector`.
pub(crate) fn template_cells(object: &Object) -> [Value; 3] {
    let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let all = |field: &str| {
        let texts =
            containers.into_iter().flatten().map(|container| container[field].as_str().unwrap_or_default());
        Value::from(texts.collect::<Vec<_>>().join(","))
    };
    let selector = object.pointer("/spec/selector").and_then(LabelSelector::from_value);
    let selector = selector.filter(|s| !s.is_everything()).map(|s| s.to_string());
    [all("name"), all("image"), selector.unwrap_or_else(|| "<none>".into()).into()]
}
