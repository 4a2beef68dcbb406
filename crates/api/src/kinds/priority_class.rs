//! `PriorityClass`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

use super::field::{self, part};

pub(crate) struct PriorityClass;

/// Above this, priorities are the system's.
const HIGHEST_OF_USERS: i64 = 1_000_000_000;
/// The classes that every cluster has.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Rules for PriorityClass {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        object.0.entry("preemptionPolicy").or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn prepare_create(&self, object: &mut Object) {
        // Upstream never counts it on.
        object.set_meta("generation", 1);
    }

    fn looks_at_changes(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let (policy, path) = (part(object, "preemptionPolicy"), "preemptionPolicy");
        if field::require(policy, path, "", faults) {
            field::one_of(policy, path, &["Never", "PreemptLowerPriority"], faults);
        }
        let value = part(object, "value").as_i64().unwrap_or_default();
        if object.name().starts_with("system-") {
            let known = SYSTEM.contains(&(object.name(), value)) && part(object, "globalDefault") != true;
            if !known {
                let why = "priority class names with 'system-' prefix are reserved for system use only";
                faults.push(Cause::forbidden("metadata.name", why));
            }
        } else if value > HIGHEST_OF_USERS {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            faults.push(Cause::forbidden("value", &why));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if part(object, "value") != part(old, "value") {
            faults.push(Cause::forbidden("value", "may not be changed in an update."));
        }
        field::immutable("preemptionPolicy", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::integer("Value"),
                Column { name: "Global-Default", kind: "boolean", priority: 0 },
                Column::text("Age"),
                Column::text("PreemptionPolicy"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        vec![
            object.name().into(),
            part(object, "value").clone(),
            (part(object, "globalDefault") == true).into(),
            age(object, now),
            part(object, "preemptionPolicy").clone(),
        ]
    }
}
