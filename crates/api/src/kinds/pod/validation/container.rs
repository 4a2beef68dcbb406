//! Faults of containers: `validateContainers` upstream.

use std::collections::HashSet;

use cel::Quantity;
use serde_json::{Value, json};

use super::files::validate_descending;
use super::{items, validate_unique_name};
use crate::faults::Faults;
use crate::kinds::endpoints::validate_port;
use crate::kinds::service::port_name_fault;
use crate::name;
use crate::status::Cause;

/// Containers and init containers of a pod spec; `volumes` are the names of its volumes.
pub(super) fn validate_containers(spec: &Value, path: &str, volumes: &HashSet<&str>, faults: &mut Faults) {
    if items(&spec["containers"]).next().is_none() {
        faults.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = HashSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(&spec[list]).enumerate() {
            let path = format!("{path}.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            // Runtimes that a RuntimeClass names may do without: processes of the host have no image.
            let image = container["image"].as_str().unwrap_or_default();
            if image.is_empty() && spec["runtimeClassName"].as_str().unwrap_or_default().is_empty() {
                faults.push(Cause::required(format!("{path}.image"), ""));
            } else if image.trim() != image {
                let why = "must not have leading or trailing whitespace";
                faults.push(Cause::invalid(format!("{path}.image"), &container["image"], why));
            }
            validate_unique_name(name, &path, &mut names, faults);
            validate_container(container, &path, volumes, spec["hostNetwork"] == true, faults);
            if list == "initContainers" && container["restartPolicy"] != "Always" {
                for probe in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                    if !container[probe].is_null() {
                        let why = "may not be set for init containers without restartPolicy=Always";
                        faults.push(Cause::forbidden(format!("{path}.{probe}"), why));
                    }
                }
            }
        }
    }
}

fn validate_container(
    container: &Value,
    path: &str,
    volumes: &HashSet<&str>,
    on_host: bool,
    faults: &mut Faults,
) {
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        validate_probe(&container[probe], &format!("{path}.{probe}"), probe != "readinessProbe", faults);
    }
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            validate_handler(handler, &format!("{path}.lifecycle.{hook}"), faults);
        }
    }
    validate_ports(&container["ports"], &format!("{path}.ports"), on_host, faults);
    validate_environment(&container["env"], &format!("{path}.env"), faults);
    validate_mounts(&container["volumeMounts"], &format!("{path}.volumeMounts"), volumes, faults);
    validate_resources(&container["resources"], &format!("{path}.resources"), faults);
}

fn validate_ports(ports: &Value, path: &str, on_host: bool, faults: &mut Faults) {
    let mut names: HashSet<&str> = HashSet::new();
    for (index, port) in items(ports).enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(name) = port["name"].as_str().filter(|name| !name.is_empty()) {
            if port_name_fault(name) {
                let why = "must be at most 15 lower case letters, digits or '-', with a letter among them";
                faults.push(Cause::invalid(format!("{path}.name"), &port["name"], why));
            } else if names.contains(&name) {
                faults.push(Cause::duplicate(format!("{path}.name"), &port["name"]));
            }
            names.insert(name);
        }
        if port["containerPort"].as_i64().unwrap_or_default() == 0 {
            faults.push(Cause::required(format!("{path}.containerPort"), ""));
        } else {
            validate_port(&port["containerPort"], format!("{path}.containerPort"), faults);
        }
        if port["hostPort"].as_i64().unwrap_or_default() != 0 {
            validate_port(&port["hostPort"], format!("{path}.hostPort"), faults);
            if on_host && port["hostPort"] != port["containerPort"] {
                let why = "must match `containerPort` when `hostNetwork` is true";
                faults.push(Cause::invalid(format!("{path}.hostPort"), &port["hostPort"], why));
            }
        }
    }
}

fn validate_environment(variables: &Value, path: &str, faults: &mut Faults) {
    for (index, variable) in items(variables).enumerate() {
        let path = format!("{path}[{index}]");
        match variable["name"].as_str().unwrap_or_default() {
            "" => faults.push(Cause::required(format!("{path}.name"), "")),
            name if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') => {
                let why = "must be printable ASCII characters other than '='";
                faults.push(Cause::invalid(format!("{path}.name"), &variable["name"], why));
            }
            _ => {}
        }
        let source = &variable["valueFrom"];
        if source.is_null() {
            continue;
        }
        let has_value = variable["value"].as_str().is_some_and(|value| !value.is_empty());
        let sources = source.as_object().map_or(0, |source| source.len());
        if has_value || sources != 1 {
            let why = "must have exactly one source, and no `value` beside it";
            faults.push(Cause::invalid(format!("{path}.valueFrom"), &json!(""), why));
        }
    }
}

fn validate_mounts(mounts: &Value, path: &str, volumes: &HashSet<&str>, faults: &mut Faults) {
    let mut paths: HashSet<&str> = HashSet::new();
    for (index, mount) in items(mounts).enumerate() {
        // Upstream names these two by the list alone.
        for field in ["subPath", "subPathExpr"] {
            let below = mount[field].as_str().unwrap_or_default();
            validate_descending(below, &format!("{path}.{field}"), faults);
        }
        let path = format!("{path}[{index}]");
        match mount["name"].as_str().unwrap_or_default() {
            "" => faults.push(Cause::required(format!("{path}.name"), "")),
            name if !volumes.contains(&name) => {
                faults.push(Cause::not_found(format!("{path}.name"), &mount["name"]));
            }
            _ => {}
        }
        let at = mount["mountPath"].as_str().unwrap_or_default();
        if at.is_empty() {
            faults.push(Cause::required(format!("{path}.mountPath"), ""));
        } else if paths.contains(&at) {
            faults.push(Cause::invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        paths.insert(at);
        let given = |field: &str| mount[field].as_str().is_some_and(|text| !text.is_empty());
        if given("subPath") && given("subPathExpr") {
            let why = "subPathExpr and subPath are mutually exclusive";
            faults.push(Cause::invalid(format!("{path}.subPathExpr"), &mount["subPathExpr"], why));
        }
    }
}

fn validate_resources(resources: &Value, path: &str, faults: &mut Faults) {
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    for list in ["limits", "requests"] {
        for (resource, value) in resources[list].as_object().into_iter().flatten() {
            let field = format!("{path}.{list}[{resource}]");
            if let Some(fault) = name::qualified_fault(resource) {
                faults.push(Cause::invalid(&field, &json!(resource), fault));
            }
            if amount(value).is_some_and(|amount| amount.is_negative()) {
                faults.push(Cause::invalid(field, value, "must be greater than or equal to 0"));
            }
        }
    }
    for (resource, value) in resources["requests"].as_object().into_iter().flatten() {
        let limit = amount(&resources["limits"][resource]);
        if let (Some(request), Some(limit)) = (amount(value), limit)
            && request > limit
        {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            faults.push(Cause::invalid(format!("{path}.requests"), value, &why));
        }
    }
}

fn validate_probe(probe: &Value, path: &str, one_success: bool, faults: &mut Faults) {
    if probe.is_null() {
        return;
    }
    validate_handler(probe, path, faults);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if probe[field].as_i64().is_some_and(|number| number < 0) {
            let why = "must be greater than or equal to 0";
            faults.push(Cause::invalid(format!("{path}.{field}"), &probe[field], why));
        }
    }
    if one_success && probe["successThreshold"].as_i64().is_some_and(|successes| successes != 1) {
        faults.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
    if probe["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = format!("{path}.terminationGracePeriodSeconds");
        faults.push(Cause::invalid(field, &probe["terminationGracePeriodSeconds"], "must be greater than 0"));
    }
}

/// What a probe or a lifecycle hook does: exactly one thing.
fn validate_handler(handler: &Value, path: &str, faults: &mut Faults) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let given: Vec<&str> = kinds.into_iter().filter(|kind| handler[*kind].is_object()).collect();
    match given[..] {
        [] => faults.push(Cause::required(path, "must specify a handler type")),
        [_] => {}
        [_, second, ..] => {
            faults.push(Cause::forbidden(
                format!("{path}.{second}"),
                "may not specify more than 1 handler type",
            ));
        }
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        let action = &handler[kind];
        match &action["port"] {
            Value::String(name) if port_name_fault(name) => {
                let why = "must be at most 15 lower case letters, digits or '-', with a letter among them";
                faults.push(Cause::invalid(format!("{path}.{kind}.port"), &action["port"], why));
            }
            Value::String(_) | Value::Null => {}
            number => validate_port(number, format!("{path}.{kind}.port"), faults),
        }
    }
    if handler["exec"].is_object() && items(&handler["exec"]["command"]).next().is_none() {
        faults.push(Cause::required(format!("{path}.exec.command"), ""));
    }
}
