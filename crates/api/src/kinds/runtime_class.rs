//! `RuntimeClass`.

use machinery::metadata::validate_labels;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::field::{self, part};
use super::pod::{validate_overhead, validate_tolerations};
pub(crate) struct RuntimeClass;

impl Rules for RuntimeClass {
    fn demands_version(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let handler = part(object, "handler");
        if field::require(handler, "handler", "", faults) {
            field::named(handler, "handler", name::label_fault, faults);
        }
        validate_overhead(&part(object, "overhead")["podFixed"], "overhead", faults);
        let scheduling = part(object, "scheduling");
        validate_labels(&scheduling["nodeSelector"], "scheduling.nodeSelector", faults);
        let tolerations = &scheduling["tolerations"];
        field::unique(tolerations, "scheduling.tolerations", faults);
        validate_tolerations(tolerations, "scheduling.tolerations", faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if object.0.get("handler") != old.0.get("handler") {
            let handler = object.0.get("handler").unwrap_or(&Value::Null);
            faults.push(Cause::invalid("handler", handler, "field is immutable"));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Handler"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let handler = object.0.get("handler").cloned().unwrap_or_else(|| "".into());
        vec![json!(object.name()), handler, age(object, now)]
    }
}
