//! `ReplicaSet`.

use machinery::rules::{Column, Rules, age};
use machinery::{Faults, Object};
use serde_json::{Value, json};

use super::workload::{
    set_default, set_template_defaults, template_cells, template_warnings, validate_counts,
    validate_not_negative, validate_selector_and_template, validate_selector_stays,
};

pub(crate) struct ReplicaSet;

impl Rules for ReplicaSet {
    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "replicas", 1.into());
        set_template_defaults(object);
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_not_negative(object, "replicas", faults);
        validate_not_negative(object, "minReadySeconds", faults);
        validate_selector_and_template(object, "replicaset", faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            validate_counts(object, &["observedGeneration"], ("replicas", &parts), faults);
        } else {
            validate_selector_stays(object, old, faults);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.replicas", "/status/replicas")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::integer("Desired"),
                Column::integer("Current"),
                Column::integer("Ready"),
                Column::text("Age"),
                Column::wide("Containers"),
                Column::wide("Images"),
                Column::wide("Selector"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let mut cells = vec![
            json!(object.name()),
            count("/spec/replicas").into(),
            count("/status/replicas").into(),
            count("/status/readyReplicas").into(),
            age(object, now),
        ];
        cells.extend(template_cells(object));
        cells
    }
}
