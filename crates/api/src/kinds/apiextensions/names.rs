//! The names that a CustomResourceDefinition gives its kind.

use machinery::{Cause, Faults, name};
use serde_json::Value;

use crate::kinds::field::{self, paths, text};

pub(super) fn validate_group(group: &Value, faults: &mut Faults) {
    if !field::require(group, "spec.group", "", faults) {
        return;
    }
    let text = group.as_str().unwrap_or_default();
    let why = name::subdomain_fault(text)
        .or((!text.contains('.')).then_some("should be a domain with at least one dot"));
    faults.extend(why.map(|why| Cause::invalid("spec.group", group, why)));
}

pub(super) fn validate_names(names: &Value, faults: &mut Faults) {
    let path = "spec.names";
    for field in ["plural", "singular", "kind", "listKind"] {
        let value = &names[field];
        let path = format!("{path}.{field}");
        if value.as_str().is_none_or(str::is_empty) {
            faults.push(Cause::required(path, ""));
            continue;
        }
        // Kinds have capitals, and are words otherwise.
        let word = match field {
            "kind" | "listKind" => text(names, field).to_lowercase(),
            _ => text(names, field).to_owned(),
        };
        if let Some(why) = name::label_1035_fault(&word) {
            faults.push(Cause::invalid(path, value, why));
        }
    }
    for list in ["shortNames", "categories"] {
        for (path, name) in paths(&names[list], &format!("{path}.{list}")) {
            field::named(name, path, name::label_1035_fault, faults);
        }
    }
    if !text(names, "kind").is_empty() && names["kind"] == names["listKind"] {
        let why = "kind and listKind may not be the same";
        faults.push(Cause::invalid(format!("{path}.listKind"), &names["listKind"], why));
    }
}
