//! `Deployment`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, Share, keep, share};
use serde_json::{Value, json};

use super::field::text;
use super::workload::{
    set_default, set_template_defaults, template_cells, template_warnings, validate_counts,
    validate_not_negative, validate_selector_and_template, validate_selector_stays,
};

pub(crate) struct Deployment;

impl Rules for Deployment {
    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "replicas", 1.into());
        set_default(object, "strategy", json!({}));
        set_default(object, "revisionHistoryLimit", 10.into());
        set_default(object, "progressDeadlineSeconds", 600.into());
        let strategy = object.0.get_mut("spec").and_then(|spec| spec.get_mut("strategy"));
        if let Some(Value::Object(strategy)) = strategy {
            let kind = strategy.entry("type").or_insert_with(|| "RollingUpdate".into());
            if kind == "RollingUpdate"
                && let Value::Object(rolling) = strategy.entry("rollingUpdate").or_insert_with(|| json!({}))
            {
                rolling.entry("maxUnavailable").or_insert_with(|| "25%".into());
                rolling.entry("maxSurge").or_insert_with(|| "25%".into());
            }
        }
        set_template_defaults(object);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        if subresource == "status" {
            let old = old.0.get("metadata").and_then(Value::as_object);
            keep(object.metadata_mut(), old, "labels");
        }
    }

    fn counts_as_change(&self, object: &Object, old: &Object) -> bool {
        // Annotations go on to the ReplicaSets.
        object.meta("annotations") != old.meta("annotations")
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_not_negative(object, "replicas", faults);
        validate_selector_and_template(object, "deployment", faults);
        validate_strategy(object.pointer("/spec/strategy").unwrap_or(&Value::Null), faults);
        for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            validate_not_negative(object, field, faults);
        }
        let seconds = |field| object.pointer(field).and_then(Value::as_i64);
        if let Some(deadline) = seconds("/spec/progressDeadlineSeconds")
            && deadline <= seconds("/spec/minReadySeconds").unwrap_or_default()
        {
            let why = "must be greater than minReadySeconds";
            faults.push(Cause::invalid("spec.progressDeadlineSeconds", &deadline.into(), why));
        }
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
            let others = ["observedGeneration", "unavailableReplicas", "collisionCount"];
            validate_counts(object, &others, ("replicas", &parts), faults);
        } else {
            validate_selector_stays(object, old, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Ready"),
                Column::text("Up-to-date"),
                Column::text("Available"),
                Column::text("Age"),
                Column::wide("Containers"),
                Column::wide("Images"),
                Column::wide("Selector"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
        let mut cells = vec![
            json!(object.name()),
            ready.into(),
            count("/status/updatedReplicas").into(),
            count("/status/availableReplicas").into(),
            age(object, now),
        ];
        cells.extend(template_cells(object));
        cells
    }
}

fn validate_strategy(strategy: &Value, faults: &mut Faults) {
    let rolling = &strategy["rollingUpdate"];
    let path = "spec.strategy.rollingUpdate";
    match text(strategy, "type") {
        "RollingUpdate" => {}
        "Recreate" => {
            if !rolling.is_null() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                faults.push(Cause::forbidden(path, why));
            }
            return;
        }
        // Upstream names the strategy, not its type.
        _ => {
            let choices = ["Recreate", "RollingUpdate"];
            return faults.push(Cause::not_supported("spec.strategy", strategy, &choices));
        }
    }
    let mut both_nothing = true;
    for field in ["maxUnavailable", "maxSurge"] {
        match share(&rolling[field]) {
            Some(Share { number, percent }) => {
                both_nothing &= number == 0;
                if percent && number > 100 && field == "maxUnavailable" {
                    faults.push(Cause::invalid(
                        format!("{path}.{field}"),
                        &rolling[field],
                        "must not be greater than 100%",
                    ));
                }
            }
            None => {
                both_nothing = false;
                let why = "must be an integer that is not negative, or a percentage such as 25%";
                faults.push(Cause::invalid(format!("{path}.{field}"), &rolling[field], why));
            }
        }
    }
    if both_nothing {
        let why = "may not be 0 when `maxSurge` is 0";
        faults.push(Cause::invalid(format!("{path}.maxUnavailable"), &rolling["maxUnavailable"], why));
    }
}
