//! Which requests webhooks and policies are about.

use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use crate::kinds::field::{self, default, default_each, items, paths, text};
use crate::kinds::workload::validate_selector;

/// More conditions than this would cost every request too much.
const MOST_CONDITIONS: usize = 64;

/// Defaults of the rules in the list `field`.
pub(super) fn default_rules(value: &mut Value, field: &str) {
    default_each(value, field, |rule| default(rule, "scope", "*"));
}

/// Defaults of a `MatchResources`.
pub(super) fn default_match(matching: &mut Value) {
    default(matching, "matchPolicy", "Equivalent");
    default(matching, "namespaceSelector", json!({}));
    default(matching, "objectSelector", json!({}));
    default_rules(matching, "resourceRules");
    default_rules(matching, "excludeResourceRules");
}

/// A rule: what is done to which resources.
pub(super) fn validate_rule(rule: &Value, path: &str, faults: &mut Faults) {
    for field in ["operations", "apiGroups", "apiVersions"] {
        validate_list(&rule[field], &format!("{path}.{field}"), faults);
    }
    validate_resources(&rule["resources"], &format!("{path}.resources"), faults);
}

fn validate_list(list: &Value, path: &str, faults: &mut Faults) {
    if !field::require(list, path, "", faults) {
        return;
    }
    for (path, item) in paths(list, path) {
        // The core group is the empty one, and operations are held against their choices.
        if item == "" && path.contains("apiVersions") {
            faults.push(Cause::required(path, ""));
        }
    }
    if items(list).len() > 1 && items(list).iter().any(|item| item == "*") {
        let why = "if '*' is present, must not specify other items";
        faults.push(Cause::invalid(path, list, why));
    }
}

fn validate_resources(list: &Value, path: &str, faults: &mut Faults) {
    if !field::require(list, path, "", faults) {
        return;
    }
    let all: Vec<&str> = items(list).iter().filter_map(Value::as_str).collect();
    for (index, resource) in all.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let covers = |other: &&str| {
            let (plural_of, sub_of) = other.split_once('/').unwrap_or((other, ""));
            (plural_of == "*" && sub_of == subresource) || (plural_of == plural && sub_of == "*")
        };
        if resource.is_empty() {
            faults.push(Cause::required(path, ""));
        } else if subresource != "*"
            && plural != "*"
            && let Some(other) = all.iter().filter(|other| *other != resource).find(|other| covers(other))
        {
            let why = format!("if {other:?} is present, must not specify {resource:?}");
            faults.push(Cause::invalid(path, &json!(resource), &why));
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        faults.push(Cause::invalid(path, list, why));
    } else if all.contains(&"*") && all.iter().any(|other| *other != "*" && !other.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        faults.push(Cause::invalid(path, list, why));
    }
}

/// A `MatchResources` of a policy or its binding.
pub(super) fn validate_match(matching: &Value, path: &str, faults: &mut Faults) {
    for selector in ["namespaceSelector", "objectSelector"] {
        validate_selector(&matching[selector], &format!("{path}.{selector}"), faults);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (path, rule) in paths(&matching[list], &format!("{path}.{list}")) {
            validate_rule(rule, &path, faults);
            let (names, path) = (&rule["resourceNames"], format!("{path}.resourceNames"));
            for (path, name) in paths(names, &path) {
                field::named(name, path, field::segment_fault, faults);
            }
            field::unique(names, &path, faults);
        }
    }
}

/// CEL conditions that a request must meet.
pub(super) fn validate_conditions(conditions: &Value, path: &str, faults: &mut Faults) {
    let count = items(conditions).len();
    if count > MOST_CONDITIONS {
        faults.push(Cause::too_many(path, count, MOST_CONDITIONS));
    }
    field::unique_by(conditions, "name", path, faults);
    for (path, condition) in paths(conditions, path) {
        validate_expression(&condition["expression"], &format!("{path}.expression"), faults);
        let path = format!("{path}.name");
        if field::require(&condition["name"], &path, "", faults) {
            field::named(&condition["name"], path, name::qualified_fault, faults);
        }
    }
}

/// A CEL expression, as far as it can be judged without running it.
pub(super) fn validate_expression(expression: &Value, path: &str, faults: &mut Faults) {
    if expression.as_str().unwrap_or_default().trim().is_empty() {
        faults.push(Cause::required(path, ""));
    }
}

/// The kind of a policy's parameters.
pub(super) fn validate_param_kind(kind: &Value, path: &str, faults: &mut Faults) {
    if kind.is_null() {
        return;
    }
    if field::require(&kind["apiVersion"], format!("{path}.apiVersion"), "", faults) {
        let (group, version) =
            text(kind, "apiVersion").split_once('/').unwrap_or(("", text(kind, "apiVersion")));
        let fits = name::label_1035_fault(version).is_none()
            && (group.is_empty() || name::subdomain_fault(group).is_none());
        if !fits {
            let why = "must be a group and a version, such as example.com/v1";
            faults.push(Cause::invalid(format!("{path}.apiVersion"), &kind["apiVersion"], why));
        }
    }
    if field::require(&kind["kind"], format!("{path}.kind"), "", faults)
        && let Some(why) = name::label_1035_fault(&text(kind, "kind").to_lowercase())
    {
        faults.push(Cause::invalid(format!("{path}.kind"), &kind["kind"], why));
    }
}

/// Where a binding's parameters are.
pub(super) fn validate_param_ref(reference: &Value, path: &str, faults: &mut Faults) {
    if reference.is_null() {
        return;
    }
    let (named, selects) = (!text(reference, "name").is_empty(), !reference["selector"].is_null());
    if named {
        field::named(&reference["name"], format!("{path}.name"), field::segment_fault, faults);
    }
    if selects {
        validate_selector(&reference["selector"], &format!("{path}.selector"), faults);
    }
    if named && selects {
        for field in ["name", "selector"] {
            let why = "name and selector are mutually exclusive";
            faults.push(Cause::forbidden(format!("{path}.{field}"), why));
        }
    } else if !named && !selects {
        faults.push(Cause::required(path, "one of name or selector must be specified"));
    }
    let path = format!("{path}.parameterNotFoundAction");
    if field::require(&reference["parameterNotFoundAction"], &path, "", faults) {
        field::one_of(&reference["parameterNotFoundAction"], path, &["Deny", "Allow"], faults);
    }
}
