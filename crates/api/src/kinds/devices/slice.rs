//! `ResourceSlice`.

use machinery::metadata::validate_label_key;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::{unique_by_name, validate_driver};
use crate::kinds::field::{self, items, part, paths, text};
use crate::kinds::pod::validate_node_selector;

pub(crate) struct ResourceSlice;

const MOST_DEVICES: usize = 128;
const MOST_ATTRIBUTES: usize = 32;
const LONGEST_VALUE: usize = 64;
const LONGEST_POOL: usize = 253;
/// Where the devices are reached from: one of these says it.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

impl Rules for ResourceSlice {
    fn answers_deleted_object(&self) -> bool {
        true
    }

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
        if !spec["nodeName"].is_null() {
            field::named(&spec["nodeName"], "spec.nodeName", name::subdomain_fault, faults);
        }
        let selector = &spec["nodeSelector"];
        if !selector.is_null() {
            let path = "spec.nodeSelector";
            validate_node_selector(selector, path, faults);
            let terms = &selector["nodeSelectorTerms"];
            if items(terms).len() != 1 {
                let why = "must have exactly one node selector term";
                faults.push(Cause::invalid(format!("{path}.nodeSelectorTerms"), terms, why));
            }
        }
        let devices = &spec["devices"];
        if items(devices).len() > MOST_DEVICES {
            faults.push(Cause::too_many("spec.devices", items(devices).len(), MOST_DEVICES));
        }
        for (path, device) in paths(devices, "spec.devices") {
            let name = json!(text(device, "name"));
            field::named(&name, format!("{path}.name"), name::label_fault, faults);
            validate_device(device, spec["perDeviceNodeSelection"] == true, &path, faults);
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
                    1 => {}
                    _ => {
                        let why = "exactly one value must be specified";
                        faults.push(Cause::invalid(&path, attribute, why));
                    }
                }
                for field in ["string", "version"] {
                    if text(attribute, field).len() > LONGEST_VALUE {
                        faults.push(Cause::too_long(format!("{path}.{field}"), LONGEST_VALUE));
                    }
                }
                let version = &attribute["version"];
                if version.as_str().is_some_and(|version| !is_version(version)) {
                    let why = "must be a string compatible with semver.org spec 2.0.0";
                    faults.push(Cause::invalid(format!("{path}.version"), version, why));
                }
            }
        }
        unique_by_name(devices, "spec.devices", faults);
        if !spec["sharedCounters"].is_null() && !devices.is_null() {
            let why = "only one of `sharedCounters` or `devices` is allowed";
            faults.push(Cause::invalid("spec", &Value::Null, why));
        }
        for (path, set) in paths(&spec["sharedCounters"], "spec.sharedCounters") {
            if field::require(&set["name"], format!("{path}.name"), "", faults) {
                field::named(&set["name"], format!("{path}.name"), name::label_fault, faults);
            }
            if set["counters"].as_object().is_none_or(|counters| counters.is_empty()) {
                faults.push(Cause::required(format!("{path}.counters"), ""));
            }
        }
        for field in ["allNodes", "perDeviceNodeSelection"] {
            if spec[field] == false {
                let why = "must be either unset or set to true";
                faults.push(Cause::invalid(format!("spec.{field}"), &spec[field], why));
            }
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        for field in ["spec.nodeName", "spec.driver", "spec.pool.name"] {
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

/// Where a device is reached from, what it takes, and what keeps others off it.
fn validate_device(device: &Value, says_where: bool, path: &str, faults: &mut Faults) {
    let places = ["nodeName", "nodeSelector", "allNodes"];
    if !says_where && places.iter().any(|place| !device[*place].is_null()) {
        let why =
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is true";
        faults.push(Cause::invalid(path, &Value::Null, why));
    }
    for (key, capacity) in device["capacity"].as_object().into_iter().flatten() {
        if !capacity["requestPolicy"].is_null() && device["allowMultipleAllocations"] != true {
            let why = "may only be set if `allowMultipleAllocations` is true";
            faults.push(Cause::forbidden(format!("{path}.capacity[{key}].requestPolicy"), why));
        }
    }
    for (path, taken) in paths(&device["consumesCounters"], &format!("{path}.consumesCounters")) {
        if field::require(&taken["counterSet"], format!("{path}.counterSet"), "", faults) {
            field::named(&taken["counterSet"], format!("{path}.counterSet"), name::label_fault, faults);
        }
        if taken["counters"].as_object().is_none_or(|counters| counters.is_empty()) {
            faults.push(Cause::required(format!("{path}.counters"), ""));
        }
    }
    for (path, taint) in paths(&device["taints"], &format!("{path}.taints")) {
        validate_label_key(&json!(text(taint, "key")), &format!("{path}.key"), faults);
        field::named(&taint["value"], format!("{path}.value"), name::label_value_fault, faults);
        field::require(&taint["effect"], format!("{path}.effect"), "", faults);
    }
}

/// Whether a text is a version of semver.org.
fn is_version(text: &str) -> bool {
    let (core, _) = text.split_once(['-', '+']).unwrap_or((text, ""));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    core.split('.').count() == 3 && core.split('.').all(is_number)
}

fn validate_pool(pool: &Value, faults: &mut Faults) {
    let name = text(pool, "name");
    if field::require(&pool["name"], "spec.pool.name", "", faults) {
        if name.len() > LONGEST_POOL {
            faults.push(Cause::too_long("spec.pool.name", LONGEST_POOL));
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
