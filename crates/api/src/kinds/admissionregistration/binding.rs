//! `ValidatingAdmissionPolicyBinding` and `MutatingAdmissionPolicyBinding`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

use super::matching::{default_match, validate_match, validate_param_ref};
use crate::kinds::field::{self, items, part, text};

pub(crate) struct ValidatingAdmissionPolicyBinding;
pub(crate) struct MutatingAdmissionPolicyBinding;

const COLUMNS: &[Column] =
    &[Column::text("Name"), Column::text("PolicyName"), Column::text("ParamRef"), Column::text("Age")];

impl Rules for ValidatingAdmissionPolicyBinding {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate(object, faults);
        let actions = &part(object, "spec")["validationActions"];
        field::require(
            actions,
            "spec.validationActions",
            "at least one validation action is required",
            faults,
        );
        field::unique(actions, "spec.validationActions", faults);
        let has = |action: &str| items(actions).iter().any(|found| found == action);
        if has("Deny") && has("Warn") {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                API response and headers serves no purpose)";
            faults.push(Cause::invalid("spec.validationActions", actions, why));
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, now)
    }
}

impl Rules for MutatingAdmissionPolicyBinding {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate(object, faults);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, now)
    }
}

fn set_defaults(object: &mut Object) {
    if let Some(matching) = object.0.get_mut("spec").and_then(|spec| spec.get_mut("matchResources")) {
        default_match(matching);
    }
}

fn validate(object: &Object, faults: &mut Faults) {
    let spec = part(object, "spec");
    if field::require(&spec["policyName"], "spec.policyName", "", faults) {
        field::named(&spec["policyName"], "spec.policyName", machinery::name::subdomain_fault, faults);
    }
    validate_param_ref(&spec["paramRef"], "spec.paramRef", faults);
    validate_match(&spec["matchResources"], "spec.matchResources", faults);
}

fn cells(object: &Object, now: i64) -> Vec<Value> {
    let spec = part(object, "spec");
    let reference = &spec["paramRef"];
    let reference = match (reference.is_null(), text(reference, "namespace"), text(reference, "name")) {
        (true, ..) => "<unset>".to_owned(),
        (false, _, "") => "*".to_owned(),
        (false, "", name) => name.to_owned(),
        (false, namespace, name) => format!("{namespace}/{name}"),
    };
    vec![object.name().into(), text(spec, "policyName").into(), reference.into(), age(object, now)]
}
