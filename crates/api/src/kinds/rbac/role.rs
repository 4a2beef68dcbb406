//! `Role` and `ClusterRole`.

use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

use crate::kinds::field::{self, items, part, paths};
use crate::kinds::workload::validate_selector;

pub(crate) struct Role;
pub(crate) struct ClusterRole;

const COLUMNS: &[Column] = &[Column::text("Name"), Column { name: "Created At", kind: "date", priority: 0 }];

impl Rules for Role {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Object) {
        rules_or_null(object);
    }

    fn prepare_update(&self, _subresource: &str, object: &mut Object, _old: &Object) {
        rules_or_null(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_rules(object, true, faults);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        created(object)
    }
}

impl Rules for ClusterRole {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Object) {
        rules_or_null(object);
    }

    fn prepare_update(&self, _subresource: &str, object: &mut Object, _old: &Object) {
        rules_or_null(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_rules(object, false, faults);
        let aggregation = part(object, "aggregationRule");
        if aggregation.is_null() {
            return;
        }
        let (selectors, path) =
            (&aggregation["clusterRoleSelectors"], "aggregationRule.clusterRoleSelectors");
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        field::require(selectors, path, why, faults);
        for (path, selector) in paths(selectors, path) {
            if !validate_selector(selector, &path, faults) {
                faults.push(Cause::invalid(path, selector, "invalid label selector"));
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        created(object)
    }
}

/// Upstream always writes the rules down, also where there are none.
fn rules_or_null(object: &mut Object) {
    object.0.entry("rules").or_insert(Value::Null);
}

fn created(object: &Object) -> Vec<Value> {
    vec![object.name().into(), object.meta("creationTimestamp").cloned().unwrap_or_default()]
}

fn validate_rules(object: &Object, namespaced: bool, faults: &mut Faults) {
    for (path, rule) in paths(part(object, "rules"), "rules") {
        field::require(
            &rule["verbs"],
            format!("{path}.verbs"),
            "verbs must contain at least one value",
            faults,
        );
        let urls = &rule["nonResourceURLs"];
        if items(urls).is_empty() {
            for (part, why) in [
                ("apiGroups", "resource rules must supply at least one api group"),
                ("resources", "resource rules must supply at least one resource"),
            ] {
                field::require(&rule[part], format!("{path}.{part}"), why, faults);
            }
            continue;
        }
        let path = format!("{path}.nonResourceURLs");
        if namespaced {
            faults.push(Cause::invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|part| !items(&rule[*part]).is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            faults.push(Cause::invalid(path, urls, why));
        }
    }
}
