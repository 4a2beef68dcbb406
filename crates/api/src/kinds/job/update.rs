//! What of a job may change: `ValidateJobSpecUpdate` and `ValidateJobStatus` upstream.

use std::collections::HashSet;

use machinery::rules::number;
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use crate::kinds::workload::{validate_stays, validate_value_not_negative};

/// What steers where the pods of a job go: it may change before the first of them starts.
const SCHEDULING: [&str; 4] = ["affinity", "nodeSelector", "schedulingGates", "tolerations"];

pub(super) fn validate_spec(object: &Object, old: &Object, faults: &mut Faults) {
    let null = Value::Null;
    let (new, before) = (object.0.get("spec").unwrap_or(&null), old.0.get("spec").unwrap_or(&null));
    // A job with indexes can grow and shrink, with as many pods as there are indexes.
    let elastic =
        |spec: &Value| spec["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
    if new["completions"] != before["completions"] && !(elastic(new) && before["completionMode"] == "Indexed")
    {
        validate_stays(object, old, "/spec/completions", faults);
    }
    validate_stays(object, old, "/spec/selector", faults);
    if template(object, old) != old.pointer("/spec/template").cloned() {
        faults.push(Cause::invalid("spec.template", &new["template"], "field is immutable"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        validate_stays(object, old, &format!("/spec/{field}"), faults);
    }
}

/// The template, what may change in it as it was.
fn template(object: &Object, old: &Object) -> Option<Value> {
    let mut template = object.pointer("/spec/template")?.clone();
    let suspended = old.pointer("/spec/suspend") == Some(&json!(true));
    let started = old.pointer("/status/startTime").is_some_and(|time| !time.is_null());
    if !suspended || started {
        return Some(template);
    }
    let before = old.pointer("/spec/template")?;
    for (part, fields) in [("metadata", &["annotations", "labels"][..]), ("spec", &SCHEDULING)] {
        let Some(Value::Object(map)) = template.get_mut(part) else { continue };
        for field in fields {
            match before[part].get(field) {
                Some(value) => map.insert((*field).to_owned(), value.clone()),
                None => map.remove(*field),
            };
        }
    }
    Some(template)
}

pub(super) fn validate_status(object: &Object, faults: &mut Faults) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        let value = object.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null);
        validate_value_not_negative(value, format!("status.{field}"), faults);
    }
    let active = number(object, "/status/active");
    if number(object, "/status/ready") > active {
        let value = object.pointer("/status/ready").unwrap_or(&Value::Null);
        faults.push(Cause::invalid("status.ready", value, "cannot set more ready pods than active"));
    }
    for list in ["succeeded", "failed"] {
        let uids =
            object.pointer(&format!("/status/uncountedTerminatedPods/{list}")).and_then(Value::as_array);
        let uids = uids.map_or(&[][..], Vec::as_slice);
        let mut seen = HashSet::new();
        for (index, uid) in uids.iter().enumerate() {
            let path = format!("status.uncountedTerminatedPods.{list}[{index}]");
            if uid == "" {
                faults.push(Cause::invalid(path, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                faults.push(Cause::duplicate(path, uid));
            }
        }
    }
}
