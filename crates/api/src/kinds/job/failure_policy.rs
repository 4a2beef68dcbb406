//! `podFailurePolicy` and `podReplacementPolicy` of a job.

use std::collections::HashSet;

use machinery::metadata::validate_label_key;
use machinery::name::label_fault;
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MOST_RULES: usize = 20;
const MOST_VALUES: usize = 255;

pub(super) fn set_defaults(object: &mut Object) {
    let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
    let Some(Value::Object(policy)) = spec.get_mut("podFailurePolicy") else { return };
    for rule in policy.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        let patterns = rule.get_mut("onPodConditions").and_then(Value::as_array_mut);
        for pattern in patterns.into_iter().flatten().filter_map(Value::as_object_mut) {
            pattern.entry("status").or_insert_with(|| "True".into());
            if pattern["status"] == "" {
                pattern.insert("status".into(), json!("True"));
            }
        }
    }
}

pub(super) fn validate(spec: &Value, path: &str, faults: &mut Faults) {
    let policy = &spec["podFailurePolicy"];
    if policy.is_null() {
        return;
    }
    if spec["podReplacementPolicy"].as_str().is_some_and(|policy| policy == "TerminatingOrFailed") {
        let field = format!("{path}.podReplacementPolicy");
        faults.push(Cause::not_supported(field, &spec["podReplacementPolicy"], &["Failed"]));
    }
    let path = format!("{path}.podFailurePolicy.rules");
    let rules = policy["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.len() > MOST_RULES {
        let message = format!("Too many: {}: must have at most {MOST_RULES} items", rules.len());
        faults.push(Cause { reason: "FieldValueTooMany".into(), message, field: path.clone() });
    }
    let containers: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec["template"]["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        validate_rule(rule, spec, &containers, &format!("{path}[{index}]"), faults);
    }
}

fn validate_rule(rule: &Value, spec: &Value, containers: &HashSet<&str>, path: &str, faults: &mut Faults) {
    let action = &rule["action"];
    match action.as_str().unwrap_or_default() {
        "" => faults.push(Cause::required(format!("{path}.action"), "")),
        "FailIndex" if spec["backoffLimitPerIndex"].is_null() => {
            let why = "requires the backoffLimitPerIndex to be set";
            faults.push(Cause::invalid(format!("{path}.action"), action, why));
        }
        _ => {}
    }
    let (codes, conditions) = (&rule["onExitCodes"], rule["onPodConditions"].as_array());
    let has_conditions = conditions.is_some_and(|list| !list.is_empty());
    if codes.is_null() && !has_conditions {
        let why = "specifying one of OnExitCodes and OnPodConditions is required";
        faults.push(Cause::invalid(path, rule, why));
    }
    if !codes.is_null() && has_conditions {
        let why = "specifying both OnExitCodes and OnPodConditions is not supported";
        faults.push(Cause::invalid(path, rule, why));
    }
    for (index, pattern) in conditions.into_iter().flatten().enumerate() {
        let kind = pattern["type"].as_str().unwrap_or_default();
        let path = format!("{path}.onPodConditions[{index}]");
        validate_label_key(&json!(kind), &format!("{path}.type"), faults);
        if pattern["status"].as_str().is_some_and(|status| !STATUSES.contains(&status)) {
            faults.push(Cause::not_supported(format!("{path}.status"), &pattern["status"], &STATUSES));
        }
    }
    if codes.is_object() {
        validate_exit_codes(codes, containers, &format!("{path}.onExitCodes"), faults);
    }
}

fn validate_exit_codes(codes: &Value, containers: &HashSet<&str>, path: &str, faults: &mut Faults) {
    if codes["operator"].as_str().unwrap_or_default().is_empty() {
        faults.push(Cause::required(format!("{path}.operator"), ""));
    }
    if let Some(name) = codes["containerName"].as_str()
        && label_fault(name).is_none()
        && !containers.contains(&name)
    {
        let why = "must be one of the container or initContainer names in the pod template";
        faults.push(Cause::invalid(format!("{path}.containerName"), &codes["containerName"], why));
    }
    let values = codes["values"].as_array().map_or(&[][..], Vec::as_slice);
    let path = format!("{path}.values");
    if values.is_empty() {
        faults.push(Cause::invalid(&path, &codes["values"], "at least one value is required"));
    } else if values.len() > MOST_VALUES {
        let message = format!("Too many: {}: must have at most {MOST_VALUES} items", values.len());
        faults.push(Cause { reason: "FieldValueTooMany".into(), message, field: path.clone() });
    }
    let mut before: Option<i64> = None;
    for (index, value) in values.iter().enumerate() {
        let Some(code) = value.as_i64() else { continue };
        if codes["operator"] == "In" && code == 0 {
            let why = "must not be 0 for the In operator";
            faults.push(Cause::invalid(format!("{path}[{index}]"), value, why));
        }
        match before {
            Some(last) if last == code => faults.push(Cause::duplicate(format!("{path}[{index}]"), value)),
            Some(last) if last > code => {
                faults.push(Cause::invalid(&path, &codes["values"], "must be ordered"));
            }
            _ => {}
        }
        before = Some(code);
    }
}
