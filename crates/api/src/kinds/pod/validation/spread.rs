//! Faults of topology spread constraints: `validateTopologySpreadConstraints` upstream.

use std::collections::HashSet;

use machinery::metadata::validate_label_key;
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::field::{items, paths, text};
use crate::kinds::workload::validate_selector;

const WHEN: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];

pub(super) fn validate_constraints(constraints: &Value, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    // Of two that are alike, upstream says it of the first.
    let mut pairs: Vec<(String, (&str, &str))> = Vec::new();
    for (path, constraint) in paths(constraints, path) {
        if constraint["maxSkew"].as_i64().is_none_or(|skew| skew < 1) {
            let why = "must be greater than zero";
            faults.push(Cause::invalid(format!("{path}.maxSkew"), &constraint["maxSkew"], why));
        }
        let (key, when) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            faults.push(Cause::required(format!("{path}.topologyKey"), "can not be empty"));
        }
        if !WHEN.contains(&when) {
            faults.push(Cause::not_supported(format!("{path}.whenUnsatisfiable"), &json!(when), &WHEN));
        }
        validate_least(constraint, when, &path, faults);
        validate_keys(constraint, &path, faults);
        pairs.push((path, (key, when)));
    }
    for (path, pair) in pairs.iter().rev() {
        if !seen.insert(pair) {
            let field = format!("{path}.{{topologyKey, whenUnsatisfiable}}");
            faults.push(Cause::duplicate(field, &json!(format!("{{{}, {}}}", pair.0, pair.1))));
        }
    }
}

fn validate_least(constraint: &Value, when: &str, path: &str, faults: &mut Faults) {
    let least = &constraint["minDomains"];
    let field = format!("{path}.minDomains");
    if least.as_i64().is_some_and(|number| number < 1) {
        faults.push(Cause::invalid(&field, least, "must be greater than zero"));
    }
    if !least.is_null() && when != "DoNotSchedule" {
        let why = "can only use minDomains if whenUnsatisfiable=DoNotSchedule";
        faults.push(Cause::invalid(field, least, why));
    }
}

fn validate_keys(constraint: &Value, path: &str, faults: &mut Faults) {
    let selector = &constraint["labelSelector"];
    let expressed: HashSet<&str> =
        items(&selector["matchExpressions"]).iter().map(|expression| text(expression, "key")).collect();
    let field = format!("{path}.matchLabelKeys");
    if selector.is_null() && !items(&constraint["matchLabelKeys"]).is_empty() {
        faults.push(Cause::forbidden(&field, "must not be specified when labelSelector is not set"));
    }
    for (path, key) in paths(&constraint["matchLabelKeys"], &field) {
        validate_label_key(key, &path, faults);
        let text = key.as_str().unwrap_or_default();
        if expressed.contains(text) || !selector["matchLabels"][text].is_null() {
            faults.push(Cause::invalid(path, key, "exists in both matchLabelKeys and labelSelector"));
        }
    }
    if !selector.is_null() {
        validate_selector(selector, &format!("{path}.labelSelector"), faults);
    }
}
