//! `ResourceSlice`.

use serde_json::Value;

use super::validate_driver;
use crate::faults::Faults;
use crate::kinds::field::{self, items, part, paths, text};
use crate::kinds::rules::{Column, Rules, age};
use crate::name;
use crate::object::Object;
use crate::status::Cause;

pub(crate) struct ResourceSlice;

const MOST_DEVICES: usize = 128;
const MOST_ATTRIBUTES: usize = 32;
const LONGEST_POOL: usize = 253;
/// Where the devices are reached from: one of these says it.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

impl Rules for ResourceSlice {
    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_driver(&spec["driver"], "spec.driver", faults);
        validate_pool(&spec["pool"], faults);
        let said = PLACES.iter().filter(|place| match &spec[**place] {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
        let why =
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        match said.count() {
            0 => faults.push(Cause::required("spec", why)),
            1 => {}
            _ => faults.push(Cause::invalid("spec", &Value::Null, why)),
        }
        if !text(spec, "nodeName").is_empty() {
            field::named(&spec["nodeName"], "spec.nodeName", name::subdomain_fault, faults);
        }
        let devices = &spec["devices"];
        if items(devices).len() > MOST_DEVICES {
            faults.push(field::too_many("spec.devices", items(devices).len(), MOST_DEVICES));
        }
        for (path, device) in paths(devices, "spec.devices") {
            let name = format!("{path}.name");
            if field::require(&device["name"], &name, "", faults) {
                field::named(&device["name"], name, name::label_fault, faults);
            }
            let count = |field: &str| device[field].as_object().map_or(0, |map| map.len());
            let both = count("attributes") + count("capacity");
            if both > MOST_ATTRIBUTES {
                let why = format!(
                    "the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}"
                );
                faults.push(Cause::invalid(&path, &both.into(), &why));
            }
            for (key, attribute) in device["attributes"].as_object().into_iter().flatten() {
                let path = format!("{path}.attributes[{key}]");
                match attribute.as_object().map_or(0, |map| map.len()) {
                    0 => faults.push(Cause::required(path, "exactly one value must be specified")),
                    1 => {}
                    _ => {
                        let why = "exactly one value must be specified";
                        faults.push(Cause::invalid(path, attribute, why));
                    }
                }
            }
        }
        field::unique_by(devices, "name", "spec.devices", faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        for field in ["spec.nodeName", "spec.driver", "spec.pool.name", "spec.nodeSelector", "spec.allNodes"]
        {
            field::immutable(field, object, old, faults);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.nodeName", "/spec/nodeName"), ("spec.driver", "/spec/driver")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Node"),
                Column::text("Driver"),
                Column::text("Pool"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        vec![
            object.name().into(),
            text(spec, "nodeName").into(),
            text(spec, "driver").into(),
            text(&spec["pool"], "name").into(),
            age(object, now),
        ]
    }
}

fn validate_pool(pool: &Value, faults: &mut Faults) {
    let name = text(pool, "name");
    if field::require(&pool["name"], "spec.pool.name", "", faults) {
        if name.len() > LONGEST_POOL {
            faults.push(field::too_long("spec.pool.name", LONGEST_POOL));
        }
        for part in name.split('/') {
            field::named(&part.into(), "spec.pool.name", name::subdomain_fault, faults);
        }
    }
    let count = &pool["resourceSliceCount"];
    if count.as_i64().unwrap_or_default() <= 0 {
        faults.push(Cause::invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"));
    }
    if pool["generation"].as_i64().is_some_and(|generation| generation < 0) {
        let why = "must be greater than or equal to zero";
        faults.push(Cause::invalid("spec.pool.generation", &pool["generation"], why));
    }
}
