//! `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::matching::{
    default_match, validate_conditions, validate_expression, validate_match, validate_param_kind,
};
use crate::kinds::field::{self, default, items, part, paths, text};
use crate::policy::Policy;

pub(crate) struct ValidatingAdmissionPolicy;
pub(crate) struct MutatingAdmissionPolicy;

/// The most expressions of one kind in a policy.
const MOST: usize = 64;
const LONGEST_MESSAGE: usize = 5 * 1024;
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

impl Rules for ValidatingAdmissionPolicy {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate(object, faults);
        let (validations, audits) = (items(&spec["validations"]), items(&spec["auditAnnotations"]));
        if validations.is_empty() && audits.is_empty() {
            let why = "validations or auditAnnotations must be non-empty; neither was specified";
            faults.push(Cause::required("spec.validations", why));
            faults.push(Cause::required("spec.auditAnnotations", why));
        }
        for (path, validation) in paths(&spec["validations"], "spec.validations") {
            validate_validation(validation, &path, faults);
        }
        if audits.len() > 20 {
            faults.push(Cause::too_many("spec.auditAnnotations", audits.len(), 20));
        }
        for (path, audit) in paths(&spec["auditAnnotations"], "spec.auditAnnotations") {
            // The key of the audit log has the policy's name in front.
            let key = format!("{path}.key");
            if object.name().is_empty() {
                let why = "requires metadata.name to be there";
                faults.push(Cause::invalid(&key, &audit["key"], why));
            } else {
                for why in name::qualified_faults(&format!("{}/{}", object.name(), text(audit, "key"))) {
                    faults.push(Cause::invalid(&key, &audit["key"], why));
                }
            }
            validate_expression(&audit["valueExpression"], &format!("{path}.valueExpression"), faults);
        }
        field::unique_by(&spec["auditAnnotations"], "key", "spec.auditAnnotations", faults);
        Policy::compile(object, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::integer("Validations"),
                Column::text("ParamKind"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, "validations", now)
    }
}

impl Rules for MutatingAdmissionPolicy {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object);
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate(object, faults);
        field::require(&spec["reinvocationPolicy"], "spec.reinvocationPolicy", "", faults);
        // What is deleted can't be changed.
        let choices = ["*", "CONNECT", "CREATE", "UPDATE"];
        for rule in items(&spec["matchConstraints"]["resourceRules"]) {
            for operation in items(&rule["operations"]) {
                let path = "spec.matchConstraints.resourceRules.operations";
                field::one_of(operation, path, &choices, faults);
            }
        }
        field::require(
            &spec["mutations"],
            "spec.mutations",
            "mutations must contain at least one item",
            faults,
        );
        for (path, mutation) in paths(&spec["mutations"], "spec.mutations") {
            let kind = text(mutation, "patchType");
            let (wanted, other) = match kind {
                "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
                "JSONPatch" => ("jsonPatch", "applyConfiguration"),
                "" => {
                    faults.push(Cause::required(format!("{path}.patchType"), ""));
                    continue;
                }
                _ => continue,
            };
            if !mutation[other].is_null() {
                let why = format!("must be unset when patchType is {kind}");
                faults.push(Cause::invalid(format!("{path}.{other}"), &mutation[other], &why));
            }
            let path = format!("{path}.{wanted}");
            let why = format!("must be set when patchType is {kind}");
            if field::require(&mutation[wanted], &path, &why, faults) {
                validate_expression(&mutation[wanted]["expression"], &format!("{path}.expression"), faults);
            }
        }
        Policy::compile(object, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::integer("Mutations"),
                Column::text("ParamKind"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        cells(object, "mutations", now)
    }
}

fn cells(object: &Object, counted: &str, now: i64) -> Vec<Value> {
    let spec = part(object, "spec");
    let kind = &spec["paramKind"];
    let kind = match kind.is_null() {
        true => "<unset>".to_owned(),
        false => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
    };
    vec![object.name().into(), items(&spec[counted]).len().into(), kind.into(), age(object, now)]
}

fn set_defaults(object: &mut Object) {
    let Some(spec) = object.0.get_mut("spec") else { return };
    default(spec, "failurePolicy", "Fail");
    if let Some(matching) = spec.get_mut("matchConstraints") {
        default_match(matching);
    }
}

/// What both kinds of policy have.
fn validate(object: &Object, faults: &mut Faults) {
    let spec = part(object, "spec");
    validate_param_kind(&spec["paramKind"], "spec.paramKind", faults);
    let matching = &spec["matchConstraints"];
    if field::require(matching, "spec.matchConstraints", "", faults) {
        validate_match(matching, "spec.matchConstraints", faults);
        field::require(&matching["resourceRules"], "spec.matchConstraints.resourceRules", "", faults);
    }
    validate_conditions(&spec["matchConditions"], "spec.matchConditions", faults);
    let variables = items(&spec["variables"]);
    if variables.len() > MOST {
        faults.push(Cause::too_many("spec.variables", variables.len(), MOST));
    }
    for (path, variable) in paths(&spec["variables"], "spec.variables") {
        let name = format!("{path}.name");
        if field::require(&variable["name"], &name, "name is not specified", faults)
            && !is_identifier(text(variable, "name"))
        {
            let why = "name is not a valid CEL identifier";
            faults.push(Cause::invalid(name, &variable["name"], why));
        }
        validate_expression(&variable["expression"], &format!("{path}.expression"), faults);
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn validate_validation(validation: &Value, path: &str, faults: &mut Faults) {
    validate_expression(&validation["expression"], &format!("{path}.expression"), faults);
    for field in ["message", "messageExpression"] {
        let message = &validation[field];
        let Some(text) = message.as_str().filter(|text| !text.is_empty()) else { continue };
        if text.trim().is_empty() {
            let why = format!("{field} must be non-empty if specified");
            faults.push(Cause::invalid(format!("{path}.{field}"), message, &why));
        } else if field == "message" && text.contains('\n') {
            let why = "message must not contain line breaks";
            faults.push(Cause::invalid(format!("{path}.{field}"), message, why));
        } else if text.len() > LONGEST_MESSAGE {
            faults.push(Cause::too_long(format!("{path}.{field}"), LONGEST_MESSAGE));
        }
    }
    if !validation["reason"].is_null() {
        field::one_of(&validation["reason"], format!("{path}.reason"), &REASONS, faults);
    }
}
