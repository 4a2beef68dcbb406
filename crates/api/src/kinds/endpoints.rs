//! `Endpoints`.

use machinery::metadata::validate_label_key;
use machinery::name::{label_fault, subdomain_fault};
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::endpoint_address::validate_form;

pub(crate) struct Endpoints;

/// How many endpoints a cell shows.
pub(crate) const SHOWN: usize = 3;

impl Rules for Endpoints {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        for subset in object.0.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
            for port in subset.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(port) = port {
                    port.entry("protocol").or_insert_with(|| "TCP".into());
                }
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let subsets = object.0.get("subsets").and_then(Value::as_array);
        for (index, subset) in subsets.into_iter().flatten().enumerate() {
            let path = format!("subsets[{index}]");
            let list = |field: &str| subset[field].as_array().map_or(&[][..], Vec::as_slice);
            if list("addresses").is_empty() && list("notReadyAddresses").is_empty() {
                faults.push(Cause::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for field in ["addresses", "notReadyAddresses"] {
                for (at, address) in list(field).iter().enumerate() {
                    validate_address(address, &format!("{path}.{field}[{at}]"), faults);
                }
            }
            for (at, port) in list("ports").iter().enumerate() {
                let path = format!("{path}.ports[{at}]");
                if list("ports").len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
                    faults.push(Cause::required(format!("{path}.name"), ""));
                }
                named_label(&port["name"], format!("{path}.name"), faults);
                if !port["appProtocol"].is_null() {
                    validate_label_key(&port["appProtocol"], &format!("{path}.appProtocol"), faults);
                }
                validate_port(&port["port"], format!("{path}.port"), faults);
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Endpoints"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let mut list = Vec::new();
        for subset in object.0.get("subsets").and_then(Value::as_array).into_iter().flatten() {
            let addresses = || subset["addresses"].as_array().into_iter().flatten();
            let ips = || addresses().filter_map(|address| address["ip"].as_str());
            match subset["ports"].as_array().filter(|ports| !ports.is_empty()) {
                None => list.extend(ips().map(str::to_owned)),
                Some(ports) => {
                    for port in ports {
                        list.extend(ips().map(|ip| match ip.contains(':') {
                            true => format!("[{ip}]:{}", port["port"]),
                            false => format!("{ip}:{}", port["port"]),
                        }));
                    }
                }
            }
        }
        vec![json!(object.name()), some_of(&list, "<none>").into(), age(object, now)]
    }
}

fn validate_address(address: &Value, path: &str, faults: &mut Faults) {
    // What is no address, upstream says twice: of its form, and of what it may lead to.
    if validate_form(&address["ip"], &format!("{path}.ip"), faults).is_none() {
        validate_form(&address["ip"], &format!("{path}.ip"), faults);
    }
    named_label(&address["hostname"], format!("{path}.hostname"), faults);
    if let Some(why) = address["nodeName"].as_str().and_then(subdomain_fault) {
        faults.push(Cause::invalid(format!("{path}.nodeName"), &address["nodeName"], why));
    }
}

/// A label, where there is one.
fn named_label(value: &Value, path: String, faults: &mut Faults) {
    if let Some(why) = value.as_str().filter(|text| !text.is_empty()).and_then(label_fault) {
        faults.push(Cause::invalid(path, value, why));
    }
}

/// The first few of a list, and how many there are more.
pub(crate) fn some_of(list: &[String], none: &str) -> String {
    match list.len() {
        0 => none.to_owned(),
        1..=SHOWN => list.join(","),
        more => format!("{} + {} more...", list[..SHOWN].join(","), more - SHOWN),
    }
}

/// A port from 1 to 65535.
pub(crate) fn validate_port(port: &Value, field: String, faults: &mut Faults) {
    if !port.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        faults.push(Cause::invalid(field, port, "must be between 1 and 65535, inclusive"));
    }
}
