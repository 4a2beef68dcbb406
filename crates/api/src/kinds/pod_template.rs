//! `PodTemplate`.

use machinery::rules::{Column, Rules};
use machinery::{Faults, LabelSelector, Object};
use serde_json::{Value, json};

use super::workload::{
    container_cells, selector_cell, set_pod_template_defaults, template_warnings, validate_template,
};

pub(crate) struct PodTemplate;

impl Rules for PodTemplate {
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_pod_template_defaults(object.0.get_mut("template"));
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_template(object.0.get("template").unwrap_or(&Value::Null), "template", faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Containers"),
                Column::text("Images"),
                Column::text("Pod Labels"),
            ]
        }
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        let [names, images] = container_cells(object, "/template");
        let labels = object.pointer("/template/metadata/labels").and_then(LabelSelector::from_labels);
        vec![json!(object.name()), names, images, selector_cell(labels)]
    }
}
