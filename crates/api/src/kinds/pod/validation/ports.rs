//! Faults of containers' ports: `validateContainerPorts` upstream.

use std::collections::HashSet;

use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::field::{paths, port_name_faults, text};

const NUMBER: &str = "must be between 1 and 65535, inclusive";

/// The number of a port; none is as wrong as another.
pub(super) fn validate_number(port: &Value, path: String, faults: &mut Faults) {
    if !port.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        faults.push(Cause::invalid(path, &json!(port.as_i64().unwrap_or_default()), NUMBER));
    }
}

pub(super) fn validate_ports(ports: &Value, path: &str, on_host: bool, faults: &mut Faults) {
    let mut names: HashSet<&str> = HashSet::new();
    for (path, port) in paths(ports, path) {
        let name = text(port, "name");
        if !name.is_empty() {
            let field = format!("{path}.name");
            let before = faults.len();
            port_name_faults(name).for_each(|why| faults.push(Cause::invalid(&field, &port["name"], why)));
            if faults.len() == before && !names.insert(name) {
                faults.push(Cause::duplicate(field, &port["name"]));
            }
        }
        if port["containerPort"].as_i64().unwrap_or_default() == 0 {
            faults.push(Cause::required(format!("{path}.containerPort"), ""));
        } else {
            validate_number(&port["containerPort"], format!("{path}.containerPort"), faults);
        }
        if port["hostPort"].as_i64().unwrap_or_default() != 0 {
            validate_number(&port["hostPort"], format!("{path}.hostPort"), faults);
            if on_host && port["hostPort"] != port["containerPort"] {
                let why = "must match `containerPort` when `hostNetwork` is true";
                faults.push(Cause::invalid(format!("{path}.hostPort"), &port["hostPort"], why));
            }
        }
    }
}

/// Ports of the host that two containers want.
pub(super) fn validate_host_ports(spec: &Value, path: &str, faults: &mut Faults) {
    let mut taken = HashSet::new();
    for (path, container) in paths(&spec["containers"], &format!("{path}.containers")) {
        for (path, port) in paths(&container["ports"], &format!("{path}.ports")) {
            let number = port["hostPort"].as_i64().unwrap_or_default();
            let asked = (text(port, "protocol"), text(port, "hostIP"), number);
            if number != 0 && !taken.insert(asked) {
                let said = json!(format!("{}/{}/{}", asked.0, asked.1, asked.2));
                faults.push(Cause::duplicate(format!("{path}.hostPort"), &said));
            }
        }
    }
}
