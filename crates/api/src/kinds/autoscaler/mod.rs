//! `HorizontalPodAutoscaler`: `autoscaling/v2`, in whose form they are stored, and `autoscaling/v1`.

mod annotations;
mod behavior;
mod first;
mod table;
mod validation;

use machinery::rules::{Column, Rules};
use machinery::{Faults, Object, Resource};
use serde_json::{Value, json};

pub(crate) use first::FirstAutoscaler;

use super::workload::set_default;
use crate::kinds::resource_of_kind;

/// `autoscaling/v2`.
pub(crate) struct Autoscaler;

impl Rules for Autoscaler {
    fn in_version(&self, api_version: &str) -> Option<&'static Resource> {
        resource_of_kind(api_version, "HorizontalPodAutoscaler")
    }

    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "minReplicas", 1.into());
        if object.pointer("/spec/metrics").and_then(Value::as_array).is_none_or(Vec::is_empty)
            && let Some(Value::Object(spec)) = object.0.get_mut("spec")
        {
            let target = json!({ "type": "Utilization", "averageUtilization": 80 });
            let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } });
            spec.insert("metrics".into(), json!([metric]));
        }
        behavior::set_defaults(object.0.get_mut("spec").and_then(|spec| spec.get_mut("behavior")));
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validation::validate(object.0.get("spec").unwrap_or(&Value::Null), faults);
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
        table::cells(object, now)
    }
}
