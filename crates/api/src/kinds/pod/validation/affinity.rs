//! Faults of affinities: `validateAffinity` upstream.

use machinery::metadata::validate_label_key;
use machinery::name::{label_fault, label_value_fault, subdomain_fault};
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::field::{items, paths, text};
use crate::kinds::workload::validate_selector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate_affinity(affinity: &Value, path: &str, faults: &mut Faults) {
    let nodes = &affinity["nodeAffinity"];
    if nodes.is_object() {
        let path = format!("{path}.nodeAffinity");
        if !nodes[REQUIRED].is_null() {
            validate_node_selector(&nodes[REQUIRED], &format!("{path}.{REQUIRED}"), faults);
        }
        for (path, term) in paths(&nodes[PREFERRED], &format!("{path}.{PREFERRED}")) {
            validate_weight(term, &path, faults);
            validate_term(&term["preference"], &format!("{path}.preference"), false, faults);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = &affinity[kind];
        for (path, term) in paths(&pods[REQUIRED], &format!("{path}.{kind}.{REQUIRED}")) {
            validate_pod_term(term, &path, faults);
        }
        for (path, term) in paths(&pods[PREFERRED], &format!("{path}.{kind}.{PREFERRED}")) {
            validate_weight(term, &path, faults);
            validate_pod_term(&term["podAffinityTerm"], &format!("{path}.podAffinityTerm"), faults);
        }
    }
}

fn validate_weight(term: &Value, path: &str, faults: &mut Faults) {
    if !term["weight"].as_i64().is_some_and(|weight| (1..=100).contains(&weight)) {
        faults.push(Cause::invalid(format!("{path}.weight"), &term["weight"], "must be in the range 1-100"));
    }
}

/// A `NodeSelector`: some terms, of which one must hold.
pub(crate) fn validate_node_selector(selector: &Value, path: &str, faults: &mut Faults) {
    let path = format!("{path}.nodeSelectorTerms");
    if items(&selector["nodeSelectorTerms"]).is_empty() {
        return faults.push(Cause::required(path, "must have at least one node selector term"));
    }
    for (path, term) in paths(&selector["nodeSelectorTerms"], &path) {
        validate_term(term, &path, true, faults);
    }
}

fn validate_term(term: &Value, path: &str, values_are_labels: bool, faults: &mut Faults) {
    for (path, requirement) in paths(&term["matchExpressions"], &format!("{path}.matchExpressions")) {
        validate_expression(requirement, &path, values_are_labels, faults);
    }
    for (path, requirement) in paths(&term["matchFields"], &format!("{path}.matchFields")) {
        validate_field(requirement, &path, faults);
    }
}

fn validate_expression(requirement: &Value, path: &str, values_are_labels: bool, faults: &mut Faults) {
    let values = items(&requirement["values"]);
    let field = format!("{path}.values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            faults.push(Cause::required(field, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            faults.push(Cause::forbidden(field, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            faults.push(Cause::required(
                field,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => validate_no_operator(requirement, path, faults),
    }
    validate_label_key(&requirement["key"], &format!("{path}.key"), faults);
    for (path, value) in
        paths(&requirement["values"], &format!("{path}.values")).filter(|_| values_are_labels)
    {
        if let Some(why) = label_value_fault(value.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(path, value, why));
        }
    }
}

fn validate_no_operator(requirement: &Value, path: &str, faults: &mut Faults) {
    let why = "not a valid selector operator";
    faults.push(Cause::invalid(format!("{path}.operator"), &requirement["operator"], why));
}

/// The only field that there is, is the node's name, and it has one value.
fn validate_field(requirement: &Value, path: &str, faults: &mut Faults) {
    match text(requirement, "operator") {
        "In" | "NotIn" => {
            if items(&requirement["values"]).len() != 1 {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                faults.push(Cause::required(format!("{path}.values"), why));
            }
        }
        _ => validate_no_operator(requirement, path, faults),
    }
    if requirement["key"] != "metadata.name" {
        let key = json!(text(requirement, "key"));
        return faults.push(Cause::invalid(format!("{path}.key"), &key, "not a valid field selector key"));
    }
    for (path, value) in paths(&requirement["values"], &format!("{path}.values")) {
        if let Some(why) = subdomain_fault(value.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(path, value, why));
        }
    }
}

fn validate_pod_term(term: &Value, path: &str, faults: &mut Faults) {
    for selector in ["labelSelector", "namespaceSelector"] {
        if !term[selector].is_null() {
            validate_selector(&term[selector], &format!("{path}.{selector}"), faults);
        }
    }
    // Upstream names neither the list nor which of its items.
    for namespace in items(&term["namespaces"]) {
        if let Some(why) = label_fault(namespace.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(format!("{path}.namespace"), namespace, why));
        }
    }
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = format!("{path}.{list}");
        if term["labelSelector"].is_null() && !items(&term[list]).is_empty() {
            faults.push(Cause::forbidden(&path, "must not be specified when labelSelector is not set"));
        }
        for (path, key) in paths(&term[list], &path) {
            validate_label_key(key, &path, faults);
        }
    }
    let mismatched = items(&term["mismatchLabelKeys"]);
    for (path, key) in paths(&term["matchLabelKeys"], &format!("{path}.matchLabelKeys")) {
        if mismatched.contains(key) {
            faults.push(Cause::invalid(path, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
    let field = format!("{path}.topologyKey");
    if text(term, "topologyKey").is_empty() {
        faults.push(Cause::required(&field, "can not be empty"));
    }
    validate_label_key(&json!(text(term, "topologyKey")), &field, faults);
}
