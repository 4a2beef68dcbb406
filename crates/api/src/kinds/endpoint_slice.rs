//! `EndpointSlice`.

use std::collections::HashSet;

use machinery::metadata::validate_label_key;
use machinery::name::{label_fault, subdomain_fault};
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::endpoint_address::validate_form;
use super::endpoints::some_of;
use super::field::{part, paths, text};

pub(crate) struct EndpointSlice;

const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 20_000;
const MOST_ADDRESSES: usize = 100;

impl Rules for EndpointSlice {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 0)
    }

    fn set_defaults(&self, object: &mut Object) {
        // What this version only has for what others wrote.
        for endpoint in object.0.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(endpoint) = endpoint {
                endpoint.remove("deprecatedTopology");
            }
        }
        for port in object.0.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(port) = port {
                port.entry("name").or_insert_with(|| "".into());
                port.entry("protocol").or_insert_with(|| "TCP".into());
            }
        }
    }

    fn counts_as_change(&self, object: &Object, old: &Object) -> bool {
        object.meta("labels") != old.meta("labels")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let kind = object.0.get("addressType").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() {
            faults.push(Cause::required("addressType", ""));
        }
        let endpoints = list(object, "endpoints");
        if endpoints.len() > MOST_ENDPOINTS {
            faults.push(Cause::too_many("endpoints", endpoints.len(), MOST_ENDPOINTS));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = format!("endpoints[{index}].addresses");
            let addresses = endpoint["addresses"].as_array().map_or(&[][..], Vec::as_slice);
            if addresses.is_empty() {
                faults.push(Cause::required(&path, "must contain at least 1 address"));
            } else if addresses.len() > MOST_ADDRESSES {
                faults.push(Cause::too_many(&path, addresses.len(), MOST_ADDRESSES));
            }
            for (at, address) in addresses.iter().enumerate() {
                validate_address(kind, address, &path, at, faults);
            }
        }
        for (path, endpoint) in paths(part(object, "endpoints"), "endpoints") {
            for (field, fault) in
                [("hostname", label_fault as fn(&str) -> Option<&'static str>), ("nodeName", subdomain_fault)]
            {
                if let Some(why) = endpoint[field].as_str().and_then(fault) {
                    faults.push(Cause::invalid(format!("{path}.{field}"), &endpoint[field], why));
                }
            }
            validate_hints(&endpoint["hints"], &format!("{path}.hints"), faults);
        }
        let ports = list(object, "ports");
        if ports.len() > MOST_PORTS {
            faults.push(Cause::too_many("ports", ports.len(), MOST_PORTS));
        }
        let mut names = HashSet::new();
        for (index, port) in ports.iter().enumerate() {
            if !names.insert(&port["name"]) {
                faults.push(Cause::duplicate(format!("ports[{index}].name"), &port["name"]));
            }
            let name = port["name"].as_str().filter(|name| !name.is_empty());
            if let Some(why) = name.and_then(label_fault) {
                faults.push(Cause::invalid(format!("ports[{index}].name"), &port["name"], why));
            }
            if !port["appProtocol"].is_null() {
                validate_label_key(&port["appProtocol"], &format!("ports[{index}].appProtocol"), faults);
            }
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if object.0.get("addressType") != old.0.get("addressType") {
            let kind = object.0.get("addressType").unwrap_or(&Value::Null);
            // Addresses that stay aren't at fault.
            if list(object, "endpoints") == list(old, "endpoints") {
                faults.retain(|fault| !fault.field.starts_with("endpoints["));
            }
            faults.push(Cause::invalid("addressType", kind, "field is immutable"));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("AddressType"),
                Column::text("Ports"),
                Column::text("Endpoints"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let port = |port: &Value| match (&port["port"], &port["name"]) {
            (Value::Number(number), _) => number.to_string(),
            (_, Value::String(name)) if !name.is_empty() => name.clone(),
            _ => "*".to_owned(),
        };
        let ports: Vec<String> = list(object, "ports").iter().map(port).collect();
        let endpoints = list(object, "endpoints").iter();
        let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
        let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
        let kind = object.0.get("addressType").cloned().unwrap_or_else(|| "".into());
        vec![
            json!(object.name()),
            kind,
            some_of(&ports, "<unset>").into(),
            some_of(&addresses, "<unset>").into(),
            age(object, now),
        ]
    }
}

/// For whom an endpoint is meant.
fn validate_hints(hints: &Value, path: &str, faults: &mut Faults) {
    for (list, fault) in
        [("forZones", label_fault as fn(&str) -> Option<&'static str>), ("forNodes", subdomain_fault)]
    {
        let mut names = HashSet::new();
        for (path, hint) in paths(&hints[list], &format!("{path}.{list}")) {
            let (name, path) = (text(hint, "name"), format!("{path}.name"));
            if !names.insert(name) {
                faults.push(Cause::duplicate(&path, &json!(name)));
            }
            if let Some(why) = fault(name).filter(|_| !name.is_empty()) {
                faults.push(Cause::invalid(path, &hint["name"], why));
            }
        }
    }
}

/// An address is of its slice's type.
fn validate_address(kind: &str, address: &Value, path: &str, at: usize, faults: &mut Faults) {
    let field = format!("{path}[{at}]");
    if kind == "FQDN" {
        let name = address.as_str().unwrap_or_default();
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(why) = subdomain_fault(name) {
            faults.push(Cause::invalid(field, address, why));
        } else if !name.contains('.') {
            let why = "should be a domain with at least two segments separated by dots";
            faults.push(Cause::invalid(field, address, why));
        }
        return;
    }
    let Some(parsed) = validate_form(address, &field, faults) else { return };
    if matches!((kind, parsed.to_canonical().is_ipv4()), ("IPv4", false) | ("IPv6", true)) {
        faults.push(Cause::invalid(path, address, &format!("must be an {kind} address")));
    }
}

fn list<'a>(object: &'a Object, field: &str) -> &'a [Value] {
    object.0.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
