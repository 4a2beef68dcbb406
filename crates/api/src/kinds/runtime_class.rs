//! `RuntimeClass`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

pub(crate) struct RuntimeClass;

impl Rules for RuntimeClass {
    fn demands_version(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let handler = object.0.get("handler").and_then(Value::as_str).unwrap_or_default();
        if let Some(fault) = name::label_fault(handler) {
            faults.push(Cause::invalid("handler", &json!(handler), fault));
        }
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
