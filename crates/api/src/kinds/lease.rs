//! `Lease`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

pub(crate) struct Lease;

impl Rules for Lease {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
            // Upstream has these two switched off.
            spec.remove("preferredHolder");
            spec.remove("strategy");
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        for (field, least, why) in [
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        ] {
            if let Some(value) = object.pointer(&format!("/spec/{field}"))
                && value.as_i64().is_some_and(|number| number < least)
            {
                faults.push(Cause::invalid(format!("spec.{field}"), value, why));
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Holder"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let holder = object.pointer("/spec/holderIdentity").cloned().unwrap_or_else(|| "".into());
        vec![json!(object.name()), holder, age(object, now)]
    }
}
