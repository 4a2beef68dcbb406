//! Faults of probes and lifecycle hooks: `validateProbe` and `validateHandler` upstream.

use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::field::{items, port_name_faults, text};
use crate::kinds::workload::validate_value_not_negative;

use super::ports::validate_number;

const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];

/// Probes and hooks of a container that runs as long as its pod, which may take `grace` seconds to end.
pub(super) fn validate_of_container(container: &Value, grace: &Value, path: &str, faults: &mut Faults) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[kind];
        if probe.is_null() {
            continue;
        }
        let path = format!("{path}.{kind}");
        validate_probe(probe, grace, &path, faults);
        let term = &probe["terminationGracePeriodSeconds"];
        if kind == "readinessProbe" && !term.is_null() {
            let why = "must not be set for readinessProbes";
            faults.push(Cause::invalid(format!("{path}.terminationGracePeriodSeconds"), term, why));
        }
        if kind != "readinessProbe"
            && probe["successThreshold"].as_i64().is_some_and(|successes| successes != 1)
        {
            faults.push(Cause::invalid(
                format!("{path}.successThreshold"),
                &probe["successThreshold"],
                "must be 1",
            ));
        }
    }
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            validate_handler(handler, grace, &format!("{path}.lifecycle.{hook}"), faults);
        }
    }
}

fn validate_probe(probe: &Value, grace: &Value, path: &str, faults: &mut Faults) {
    validate_handler(probe, grace, path, faults);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        validate_value_not_negative(&probe[field], format!("{path}.{field}"), faults);
    }
    if probe["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = format!("{path}.terminationGracePeriodSeconds");
        faults.push(Cause::invalid(field, &probe["terminationGracePeriodSeconds"], "must be greater than 0"));
    }
}

/// What a probe or a hook does: exactly one thing. Of more than one, the first is looked at.
fn validate_handler(handler: &Value, grace: &Value, path: &str, faults: &mut Faults) {
    let mut first = true;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = &handler[kind];
        if !action.is_object() {
            continue;
        }
        let path = format!("{path}.{kind}");
        if !first {
            faults.push(Cause::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        first = false;
        match kind {
            "exec" if items(&action["command"]).is_empty() => {
                faults.push(Cause::required(format!("{path}.command"), ""));
            }
            "exec" => {}
            "httpGet" => validate_http_get(action, &path, faults),
            "tcpSocket" => validate_port(&action["port"], &path, faults),
            "grpc" => validate_number(&action["port"], format!("{path}.port"), faults),
            _ => {
                let most = grace.as_i64().unwrap_or_default();
                if !action["seconds"].as_i64().is_none_or(|seconds| (0..=most).contains(&seconds)) {
                    let why = format!(
                        "must be greater than or equal to 0 and not more than terminationGracePeriodSeconds ({most})"
                    );
                    faults.push(Cause::invalid(path, &action["seconds"], &why));
                }
            }
        }
    }
    if first {
        faults.push(Cause::required(path, "must specify a handler type"));
    }
}

fn validate_http_get(get: &Value, path: &str, faults: &mut Faults) {
    if text(get, "path").is_empty() {
        faults.push(Cause::required(format!("{path}.path"), ""));
    }
    validate_port(&get["port"], path, faults);
    if get["scheme"].as_str().is_some_and(|scheme| !SCHEMES.contains(&scheme)) {
        faults.push(Cause::not_supported(format!("{path}.scheme"), &get["scheme"], &SCHEMES));
    }
    for header in items(&get["httpHeaders"]) {
        let name = text(header, "name");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let why = "must be letters, digits or '-' (e.g. 'X-Header-Name')";
            faults.push(Cause::invalid(format!("{path}.httpHeaders"), &json!(name), why));
        }
    }
}

/// A port by its number or by its name.
fn validate_port(port: &Value, path: &str, faults: &mut Faults) {
    let field = format!("{path}.port");
    match port {
        Value::String(name) => {
            for why in port_name_faults(name) {
                faults.push(Cause::invalid(&field, port, why));
            }
        }
        number => validate_number(number, field, faults),
    }
}
