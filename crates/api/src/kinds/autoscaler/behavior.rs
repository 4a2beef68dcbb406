//! How fast an autoscaler may scale.

use cel::Quantity;
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::workload::validate_value_not_negative;

/// The longest period and the longest stabilization window, in seconds.
const LONGEST_PERIOD: i64 = 1800;
const LONGEST_WINDOW: i64 = 3600;

pub(super) fn set_defaults(behavior: Option<&mut Value>) {
    let Some(Value::Object(behavior)) = behavior else { return };
    let half = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let four = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
    for (field, window, policies) in
        [("scaleUp", Some(0), json!([four, half])), ("scaleDown", None, json!([half]))]
    {
        let Value::Object(rules) = behavior.entry(field).or_insert_with(|| json!({})) else { continue };
        if let Some(window) = window {
            rules.entry("stabilizationWindowSeconds").or_insert_with(|| json!(window));
        }
        rules.entry("selectPolicy").or_insert_with(|| "Max".into());
        rules.entry("policies").or_insert(policies);
    }
}

pub(super) fn validate(behavior: &Value, path: &str, faults: &mut Faults) {
    for field in ["scaleUp", "scaleDown"] {
        let rules = &behavior[field];
        if rules.is_object() {
            validate_rules(rules, &format!("{path}.{field}"), faults);
        }
    }
}

fn validate_rules(rules: &Value, path: &str, faults: &mut Faults) {
    let window = &rules["stabilizationWindowSeconds"];
    let field = format!("{path}.stabilizationWindowSeconds");
    validate_value_not_negative(window, field.clone(), faults);
    if window.as_i64().is_some_and(|seconds| seconds > LONGEST_WINDOW) {
        let why = format!("must be less than or equal to {LONGEST_WINDOW}");
        faults.push(Cause::invalid(field, window, &why));
    }
    let select = &rules["selectPolicy"];
    if !matches!(select.as_str(), None | Some("Max" | "Min" | "Disabled")) {
        faults.push(Cause::not_supported(
            format!("{path}.selectPolicy"),
            select,
            &["Disabled", "Max", "Min"],
        ));
    }
    let tolerance = rules["tolerance"].as_str().and_then(|text| Quantity::parse(text).ok());
    if tolerance.is_some_and(|tolerance| tolerance.is_negative()) {
        let why = "must be greater than or equal to 0";
        faults.push(Cause::invalid(format!("{path}.tolerance"), &rules["tolerance"], why));
    }
    let policies = rules["policies"].as_array().map_or(&[][..], Vec::as_slice);
    if policies.is_empty() {
        faults.push(Cause::required(format!("{path}.policies"), "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("{path}.policies[{index}]");
        if !matches!(policy["type"].as_str(), Some("Pods" | "Percent")) {
            faults.push(Cause::not_supported(format!("{path}.type"), &policy["type"], &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            if policy[field].as_i64().is_none_or(|number| number <= 0) {
                faults.push(Cause::invalid(
                    format!("{path}.{field}"),
                    &policy[field],
                    "must be greater than zero",
                ));
            }
        }
        if policy["periodSeconds"].as_i64().is_some_and(|seconds| seconds > LONGEST_PERIOD) {
            let why = format!("must be less than or equal to {LONGEST_PERIOD}");
            faults.push(Cause::invalid(format!("{path}.periodSeconds"), &policy["periodSeconds"], &why));
        }
    }
}
