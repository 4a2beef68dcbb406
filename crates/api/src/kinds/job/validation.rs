//! Faults of the spec of a job: `ValidateJobSpec` of `pkg/apis/batch/validation` upstream.

use serde_json::Value;

use super::failure_policy;
use crate::faults::Faults;
use crate::kinds::workload::{validate_template, validate_value_not_negative};
use crate::name::qualified_fault;
use crate::status::Cause;

/// How many pods of a job with indexes may run at once, and how many indexes there may be.
const MOST_PARALLEL: i64 = 100_000;
const MOST_INDEXES: i64 = 100_000;

/// The faults of the spec of a job or of a job's template, but for selectors and restart policy.
pub(crate) fn validate_job_spec(spec: &Value, path: &str, faults: &mut Faults) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        validate_value_not_negative(&spec[field], format!("{path}.{field}"), faults);
    }
    let number = |field: &str| spec[field].as_i64();
    if spec["completionMode"] == "Indexed" {
        if spec["completions"].is_null() {
            let why = "when completion mode is Indexed";
            faults.push(Cause::required(format!("{path}.completions"), why));
        }
        for (field, most) in [("parallelism", MOST_PARALLEL), ("completions", i64::from(i32::MAX))] {
            if number(field).is_some_and(|number| number > most) {
                let why = format!("must be less than or equal to {most} when completion mode is Indexed");
                faults.push(Cause::invalid(format!("{path}.{field}"), &spec[field], &why));
            }
        }
        if spec["backoffLimitPerIndex"].is_number()
            && let Some(completions) = number("completions")
            && number("maxFailedIndexes").is_none()
            && completions > MOST_INDEXES
        {
            faults.push(Cause::required(format!("{path}.maxFailedIndexes"), "must be specified"));
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec[field].is_number() {
                let why = "requires indexed completion mode";
                faults.push(Cause::required(format!("{path}.completionMode"), why));
            }
        }
        if !spec["successPolicy"].is_null() {
            let why = "requires indexed completion mode";
            faults.push(Cause::invalid(format!("{path}.successPolicy"), &spec["successPolicy"], why));
        }
    }
    if spec["maxFailedIndexes"].is_number() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        faults.push(Cause::required(format!("{path}.backoffLimitPerIndex"), why));
    }
    if number("maxFailedIndexes").zip(number("completions")).is_some_and(|(failed, all)| failed > all) {
        let why = "must be less than or equal to completions";
        faults.push(Cause::invalid(format!("{path}.maxFailedIndexes"), &spec["maxFailedIndexes"], why));
    }
    if let Some(by) = spec["managedBy"].as_str() {
        if !by.contains('/') || qualified_fault(by).is_some() {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            faults.push(Cause::invalid(format!("{path}.managedBy"), &spec["managedBy"], why));
        }
        if by.len() > 63 {
            let message = "Too long: may not be more than 63 bytes".to_owned();
            faults.push(Cause {
                reason: "FieldValueTooLong".into(),
                message,
                field: format!("{path}.managedBy"),
            });
        }
    }
    failure_policy::validate(spec, path, faults);
    validate_template(&spec["template"], &format!("{path}.template"), faults);
}

/// The pods of a job end: they can't be restarted forever.
pub(crate) fn validate_restart(spec: &Value, path: &str, faults: &mut Faults) {
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let field = format!("{path}.template.spec.restartPolicy");
    match policy.as_str().unwrap_or_default() {
        "" | "Always" => {
            faults.push(Cause::required(field, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            faults.push(Cause::invalid(field, policy, why));
        }
        "OnFailure" | "Never" => {}
        // The choices of the schema have it already.
        _ => {}
    }
}
