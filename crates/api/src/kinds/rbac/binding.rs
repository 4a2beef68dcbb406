//! `RoleBinding` and `ClusterRoleBinding`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::GROUP;
use crate::kinds::field::{self, items, part, paths, text};

pub(crate) struct RoleBinding;
pub(crate) struct ClusterRoleBinding;

const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Role"),
    Column::text("Age"),
    Column::wide("Users"),
    Column::wide("Groups"),
    Column::wide("ServiceAccounts"),
];

impl Rules for RoleBinding {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        default_groups(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate(object, &["Role", "ClusterRole"], true, faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validate_role_stays(object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, now)
    }
}

impl Rules for ClusterRoleBinding {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        default_groups(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate(object, &["ClusterRole"], false, faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validate_role_stays(object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, now)
    }
}

fn default_groups(object: &mut Object) {
    if let Some(role) = object.0.get_mut("roleRef")
        && text(role, "apiGroup").is_empty()
    {
        role["apiGroup"] = GROUP.into();
    }
    for subject in object.0.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if matches!(text(subject, "kind"), "User" | "Group") && text(subject, "apiGroup").is_empty() {
            subject["apiGroup"] = GROUP.into();
        }
    }
}

fn validate(object: &Object, kinds: &[&str], namespaced: bool, faults: &mut Faults) {
    let role = part(object, "roleRef");
    field::one_of(&role["apiGroup"], "roleRef.apiGroup", &[GROUP], faults);
    field::one_of(&role["kind"], "roleRef.kind", kinds, faults);
    if field::require(&role["name"], "roleRef.name", "", faults) {
        field::named(&role["name"], "roleRef.name", field::segment_fault, faults);
    }
    for (path, subject) in paths(part(object, "subjects"), "subjects") {
        let group = &subject["apiGroup"];
        let named = field::require(&subject["name"], format!("{path}.name"), "", faults);
        match text(subject, "kind") {
            "ServiceAccount" => {
                if named {
                    field::named(&subject["name"], format!("{path}.name"), name::subdomain_fault, faults);
                }
                if !text(subject, "apiGroup").is_empty() {
                    faults.push(Cause::not_supported(format!("{path}.apiGroup"), group, &[""]));
                }
                if !namespaced {
                    field::require(&subject["namespace"], format!("{path}.namespace"), "", faults);
                }
            }
            "User" | "Group" => field::one_of(group, format!("{path}.apiGroup"), &[GROUP], faults),
            _ => {
                let kinds = ["ServiceAccount", "User", "Group"];
                field::one_of(&subject["kind"], format!("{path}.kind"), &kinds, faults);
            }
        }
    }
}

fn validate_role_stays(object: &Object, old: &Object, faults: &mut Faults) {
    if part(object, "roleRef") != part(old, "roleRef") {
        faults.push(Cause::invalid("roleRef", part(object, "roleRef"), "cannot change roleRef"));
    }
}

fn cells(object: &Object, now: i64) -> Vec<Value> {
    let role = part(object, "roleRef");
    let subjects = |kind: &str| {
        let of_kind = items(part(object, "subjects")).iter().filter(|subject| text(subject, "kind") == kind);
        let names = of_kind.map(|subject| match text(subject, "namespace") {
            namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                format!("{namespace}/{}", text(subject, "name"))
            }
            _ => text(subject, "name").to_owned(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        object.name().into(),
        format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
