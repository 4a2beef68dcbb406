//! `CSINode`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::validate_driver;
use crate::kinds::field::{self, between, items, part, paths, text};

pub(crate) struct CsiNode;

const LONGEST_NODE_ID: usize = 256;

impl Rules for CsiNode {
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        // Upstream always writes the list down.
        if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
            spec.entry("drivers").or_insert(Value::Null);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let drivers = &part(object, "spec")["drivers"];
        for (path, driver) in paths(drivers, "spec.drivers") {
            validate_driver(&driver["name"], &format!("{path}.name"), faults);
            let id = &driver["nodeID"];
            if field::require(id, format!("{path}.nodeID"), "", faults)
                && id.as_str().is_some_and(|id| id.len() > LONGEST_NODE_ID)
            {
                let why = format!("must be at most {LONGEST_NODE_ID} bytes long");
                faults.push(Cause::invalid(format!("{path}.nodeID"), id, &why));
            }
            between(
                &driver["allocatable"]["count"],
                format!("{path}.allocatable.count"),
                0,
                i64::MAX,
                faults,
            );
            // Upstream names the driver for these.
            let keys = items(&driver["topologyKeys"]);
            for (index, key) in keys.iter().enumerate() {
                if key == "" {
                    faults.push(Cause::required(&path, ""));
                }
                if keys[..index].contains(key) {
                    faults.push(Cause::duplicate(&path, key));
                }
                for why in name::qualified_faults(key.as_str().unwrap_or_default()) {
                    faults.push(Cause::invalid(&path, &driver["topologyKeys"], why));
                }
            }
        }
        field::unique_by(drivers, "name", "spec.drivers", faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        let before = items(&part(old, "spec")["drivers"]);
        for (path, driver) in paths(&part(object, "spec")["drivers"], "spec.drivers") {
            let Some(known) = before.iter().find(|known| known["name"] == driver["name"]) else { continue };
            for field in
                ["nodeID", "topologyKeys"].into_iter().filter(|field| driver[*field] != known[*field])
            {
                let why = "field is immutable";
                faults.push(Cause::invalid(format!("{path}.{field}"), &driver[field], why));
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::integer("Drivers"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let drivers = items(&part(object, "spec")["drivers"]);
        let count = drivers.iter().filter(|driver| !text(driver, "name").is_empty()).count();
        vec![object.name().into(), count.into(), age(object, now)]
    }
}
