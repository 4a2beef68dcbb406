//! Faults of the spec of a job: `ValidateJobSpec` of `pkg/apis/batch/validation` upstream.

use machinery::name::qualified_fault;
use machinery::{Cause, Faults};
use serde_json::Value;

use super::failure_policy;
use crate::kinds::field::{items, paths};
use crate::kinds::workload::{validate_template, validate_value_not_negative};

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
        let failed = number("maxFailedIndexes");
        let more = failed.zip(number("completions")).is_some_and(|(failed, all)| failed > all);
        for (is_wrong, why) in [
            (more, "must be less than or equal to completions".to_owned()),
            (failed > Some(MOST_INDEXES), format!("must be less than or equal to {MOST_INDEXES}")),
        ] {
            if is_wrong {
                faults.push(Cause::invalid(
                    format!("{path}.maxFailedIndexes"),
                    &spec["maxFailedIndexes"],
                    &why,
                ));
            }
        }
        validate_success(spec, path, faults);
    } else {
        // Of a mode that there isn't, upstream doesn't say that limits by index need the other one. A CronJob's template has no
        // mode by default.
        let plain = spec["completionMode"].is_null() || spec["completionMode"] == "NonIndexed";
        let limits = ["backoffLimitPerIndex", "maxFailedIndexes"].iter().filter(|_| plain);
        for field in limits.chain(&["successPolicy"]).filter(|field| !spec[**field].is_null()) {
            let why = "requires indexed completion mode";
            faults.push(Cause::invalid(format!("{path}.{field}"), &spec[*field], why));
        }
    }
    if spec["maxFailedIndexes"].is_number() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        faults.push(Cause::required(format!("{path}.backoffLimitPerIndex"), why));
    }
    if let Some(by) = spec["managedBy"].as_str() {
        if by.is_empty() {
            faults.push(Cause::required(format!("{path}.managedBy"), ""));
        } else if !by.contains('/') || qualified_fault(by).is_some() {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            faults.push(Cause::invalid(format!("{path}.managedBy"), &spec["managedBy"], why));
        }
        if by.len() > 63 {
            faults.push(Cause::too_long(format!("{path}.managedBy"), 63));
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
        // The choices of the schema have it already, and upstream says it once more for jobs.
        _ => faults.push(Cause::not_supported(field, policy, &["OnFailure", "Never"])),
    }
}

/// When a job with indexes has succeeded before all of them have: `validateSuccessPolicy` upstream.
fn validate_success(spec: &Value, path: &str, faults: &mut Faults) {
    let policy = &spec["successPolicy"];
    if policy.is_null() {
        return;
    }
    let path = format!("{path}.successPolicy.rules");
    if items(&policy["rules"]).is_empty() {
        return faults.push(Cause::required(path, "at least one rules must be specified"));
    }
    let completions = spec["completions"].as_i64();
    for (path, rule) in paths(&policy["rules"], &path) {
        let (count, indexes) = (&rule["succeededCount"], &rule["succeededIndexes"]);
        if count.is_null() && indexes.is_null() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            faults.push(Cause::required(&path, why));
        }
        let mut total = None;
        if let Some(text) = indexes.as_str() {
            let counted = count_indexes(text, completions.unwrap_or_default());
            if counted.is_none() {
                let why = "must be numbers and ranges of numbers below completions, in order";
                faults.push(Cause::invalid(format!("{path}.succeededIndexes"), indexes, why));
            }
            total = Some(counted.unwrap_or_default());
        }
        let field = format!("{path}.succeededCount");
        let Some(number) = count.as_i64() else { continue };
        if number < 0 {
            faults.push(Cause::invalid(&field, count, "must be greater than or equal to 0"));
        }
        for (most, what) in
            [(completions, "completions"), (total, "the number of indexes in succeededIndexes")]
        {
            if most.is_some_and(|most| number > most) {
                let why = format!("must be less than or equal to {what}");
                faults.push(Cause::invalid(&field, count, &why));
            }
        }
    }
}

/// How many indexes `0,2-4` names, each of them below `completions`; nothing where it names none.
fn count_indexes(text: &str, completions: i64) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (mut count, mut last) = (0, -1);
    for part in text.split(',') {
        let (first, end) = part.split_once('-').unwrap_or((part, part));
        let (first, end) = (first.parse::<i64>().ok()?, end.parse::<i64>().ok()?);
        let is_range = part.contains('-');
        if first <= last || end >= completions || (is_range && end <= first) {
            return None;
        }
        count += end - first + 1;
        last = end;
    }
    Some(count)
}
