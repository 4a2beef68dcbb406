//! `ReplicationController`.

use machinery::rules::{Column, Rules, age, number};
use machinery::{Cause, Faults, LabelSelector, Object};
use serde_json::{Value, json};

use super::workload::{
    container_cells, selector_cell, set_default, set_template_defaults, template_warnings,
    validate_always_restarts, validate_counts, validate_fits, validate_not_negative, validate_template,
};

pub(crate) struct ReplicationController;

impl Rules for ReplicationController {
    fn set_defaults(&self, object: &mut Object) {
        let labels =
            object.pointer("/spec/template/metadata/labels").filter(|labels| !is_empty(labels)).cloned();
        if let Some(labels) = labels {
            if object.pointer("/spec/selector").is_none_or(is_empty)
                && let Some(Value::Object(spec)) = object.0.get_mut("spec")
            {
                spec.insert("selector".into(), labels.clone());
            }
            if object.meta("labels").is_none_or(is_empty) {
                object.set_meta("labels", labels);
            }
        }
        set_default(object, "replicas", 1.into());
        set_template_defaults(object);
    }

    fn looks_at_prefix(&self) -> bool {
        false
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_not_negative(object, "minReadySeconds", faults);
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        let selector = LabelSelector::from_labels(&spec["selector"]).filter(|s| !s.is_everything());
        if selector.is_none() {
            faults.push(Cause::required("spec.selector", ""));
        }
        validate_not_negative(object, "replicas", faults);
        if spec["template"].is_null() {
            return faults.push(Cause::required("spec.template", ""));
        }
        if selector.is_some() {
            validate_fits(selector.as_ref(), &spec["template"], faults);
        }
        validate_template(&spec["template"], "spec.template", faults);
        validate_always_restarts(&spec["template"], "spec.template", "ReplicationController", faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, _old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            validate_counts(object, &["observedGeneration"], ("replicas", &parts), faults);
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
        let [names, images] = container_cells(object, "/spec/template");
        vec![
            json!(object.name()),
            number(object, "/spec/replicas").into(),
            number(object, "/status/replicas").into(),
            number(object, "/status/readyReplicas").into(),
            age(object, now),
            names,
            images,
            selector_cell(object.pointer("/spec/selector").and_then(LabelSelector::from_labels)),
        ]
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}
