//! What a claim asks for.

use machinery::metadata::validate_label_key;
use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use super::{unique_by_name, validate_count, validate_opaque, validate_selectors};
use crate::kinds::field::{self, default, default_each, items, paths, text};

const MOST_ALTERNATIVES: usize = 8;
const LONGEST_IDENTIFIER: usize = 32;
const MODES: [&str; 2] = ["All", "ExactCount"];

pub(super) fn default_requests(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    default_each(devices, "requests", |request| {
        if let Some(exactly) = request.get_mut("exactly") {
            default_request(exactly);
        }
        default_each(request, "firstAvailable", default_request);
    });
}

fn default_request(request: &mut Value) {
    default(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        default(request, "count", 1);
    }
    default_each(request, "tolerations", |toleration| default(toleration, "operator", "Equal"));
}

pub(super) fn validate_claim(spec: &Value, path: &str, faults: &mut Faults) {
    let devices = &spec["devices"];
    let path = format!("{path}.devices");
    for list in ["requests", "constraints", "config"] {
        validate_count(&devices[list], &format!("{path}.{list}"), faults);
    }
    let requests = &devices["requests"];
    for (path, request) in paths(requests, &format!("{path}.requests")) {
        field::named(&named(request), format!("{path}.name"), name::label_fault, faults);
        let alternatives = &request["firstAvailable"];
        match (request["exactly"].is_null(), items(alternatives).is_empty()) {
            (true, true) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required";
                faults.push(Cause::required(path, why));
            }
            (false, false) => {
                let why =
                    "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                faults.retain(|fault| !fault.field.starts_with(&format!("{path}.firstAvailable")));
                faults.push(Cause::invalid(path, &Value::Null, why));
            }
            (false, true) => validate_request(&request["exactly"], &format!("{path}.exactly"), faults),
            (true, false) => {
                let path = format!("{path}.firstAvailable");
                if items(alternatives).len() > MOST_ALTERNATIVES {
                    faults.push(Cause::too_many(&path, items(alternatives).len(), MOST_ALTERNATIVES));
                }
                for (path, alternative) in paths(alternatives, &path) {
                    field::named(&named(alternative), format!("{path}.name"), name::label_fault, faults);
                    validate_request(alternative, &path, faults);
                }
                unique_by_name(alternatives, &path, faults);
            }
        }
    }
    unique_by_name(requests, &format!("{path}.requests"), faults);
    let known = known_requests(requests);
    for (path, constraint) in paths(&devices["constraints"], &format!("{path}.constraints")) {
        validate_references(&constraint["requests"], &known, &format!("{path}.requests"), faults);
        let attributes = ["matchAttribute", "distinctAttribute"];
        if attributes.iter().all(|attribute| constraint[*attribute].is_null()) {
            let why = "exactly one of `matchAttribute`, `distinctAttribute` is required";
            faults.push(Cause::required(&path, why));
        }
        // The other one upstream looks at in templates alone.
        let looked_at = attributes
            .iter()
            .filter(|attribute| **attribute == "matchAttribute" || path.starts_with("spec.spec."));
        for attribute in looked_at.filter(|attribute| !constraint[**attribute].is_null()) {
            validate_attribute(&constraint[*attribute], &format!("{path}.{attribute}"), faults);
        }
    }
    for (path, config) in paths(&devices["config"], &format!("{path}.config")) {
        validate_references(&config["requests"], &known, &format!("{path}.requests"), faults);
        validate_opaque(config, &path, faults);
    }
}

/// A name; that none is given is as wrong as another fault of it.
fn named(request: &Value) -> Value {
    json!(text(request, "name"))
}

/// The attribute of a device, with its domain.
fn validate_attribute(attribute: &Value, path: &str, faults: &mut Faults) {
    let text = attribute.as_str().unwrap_or_default();
    let (domain, identifier) = text.split_once('/').unwrap_or(("", text));
    if domain.is_empty() {
        faults.push(Cause::invalid(path, attribute, "must include the domain of the attribute"));
    } else if let Some(why) = name::subdomain_fault(domain) {
        faults.push(Cause::invalid(path, attribute, why));
    }
    if identifier.len() > LONGEST_IDENTIFIER {
        faults.push(Cause::too_long(path, LONGEST_IDENTIFIER));
    } else if !is_identifier(identifier) {
        let why = "must be letters, digits or '_', and begin with a letter or '_'";
        faults.push(Cause::invalid(path, attribute, why));
    }
}

/// Whether a text can name something in C, as attributes do.
pub(super) fn is_identifier(text: &str) -> bool {
    text.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn validate_request(request: &Value, path: &str, faults: &mut Faults) {
    let class = format!("{path}.deviceClassName");
    if field::require(&request["deviceClassName"], &class, "", faults) {
        field::named(&request["deviceClassName"], class, name::subdomain_fault, faults);
    }
    validate_selectors(&request["selectors"], &format!("{path}.selectors"), faults);
    for (path, toleration) in paths(&request["tolerations"], &format!("{path}.tolerations")) {
        if !text(toleration, "key").is_empty() {
            validate_label_key(&toleration["key"], &format!("{path}.key"), faults);
        }
        field::named(&toleration["value"], format!("{path}.value"), name::label_value_fault, faults);
    }
    let count = &request["count"];
    let number = count.as_i64().unwrap_or_default();
    match text(request, "allocationMode") {
        "All" if number != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            faults.push(Cause::invalid(format!("{path}.count"), count, why));
        }
        "ExactCount" if number <= 0 => {
            faults.push(Cause::invalid(format!("{path}.count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        // The schema's choices have told of any other.
        "" => field::one_of(&request["allocationMode"], format!("{path}.allocationMode"), &MODES, faults),
        _ => {}
    }
}

/// The names that constraints and configurations may use: `request`, `request/alternative`.
fn known_requests(requests: &Value) -> Vec<String> {
    let mut known = Vec::new();
    for request in items(requests) {
        let name = text(request, "name");
        known.push(name.to_owned());
        let alternatives = items(&request["firstAvailable"]).iter();
        known.extend(alternatives.map(|alternative| format!("{name}/{}", text(alternative, "name"))));
    }
    known
}

fn validate_references(list: &Value, known: &[String], path: &str, faults: &mut Faults) {
    validate_count(list, path, faults);
    field::unique(list, path, faults);
    for (path, reference) in paths(list, path) {
        let parts: Vec<&str> = reference.as_str().unwrap_or_default().split('/').collect();
        for why in parts.iter().filter_map(|part| name::label_fault(part)).filter(|_| parts.len() <= 2) {
            faults.push(Cause::invalid(&path, reference, why));
        }
        if !known.iter().any(|name| reference == name) {
            let why = "must be the name of a request in the claim or the name of a request and a subrequest \
                separated by '/'";
            faults.push(Cause::invalid(path, reference, why));
        }
    }
}
