//! `PodDisruptionBudget`.

use machinery::rules::{Column, Rules, age, number};
use machinery::{Cause, Faults, Object, share};
use serde_json::{Value, json};

use super::field::segment_fault;
use super::workload::{validate_selector, validate_value_not_negative};

pub(crate) struct PodDisruptionBudget;

impl Rules for PodDisruptionBudget {
    fn demands_version(&self) -> bool {
        true
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        segment_fault(name)
    }

    fn looks_at_prefix(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
            let why = "minAvailable and maxUnavailable cannot be both set";
            faults.push(Cause::invalid("spec", spec, why));
        }
        for field in ["minAvailable", "maxUnavailable"] {
            let path = format!("spec.{field}");
            match share(&spec[field]) {
                Some(share) if share.percent && share.number > 100 => {
                    faults.push(Cause::invalid(path, &spec[field], "must not be greater than 100%"));
                }
                Some(_) => {}
                None => {
                    let why = "must be an integer that is not negative, or a percentage such as 25%";
                    faults.push(Cause::invalid(path, &spec[field], why));
                }
            }
        }
        if !spec["selector"].is_null() {
            validate_selector(&spec["selector"], "spec.selector", faults);
        }
    }

    fn validate_update(&self, subresource: &str, object: &Object, _old: &Object, faults: &mut Faults) {
        if subresource != "status" {
            return;
        }
        for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            let value = object.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null);
            validate_value_not_negative(value, format!("status.{field}"), faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Min Available"),
                Column::text("Max Unavailable"),
                Column::integer("Allowed Disruptions"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let share = |field: &str| match object.pointer(&format!("/spec/{field}")) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            json!(object.name()),
            share("minAvailable").into(),
            share("maxUnavailable").into(),
            number(object, "/status/disruptionsAllowed").into(),
            age(object, now),
        ]
    }
}
