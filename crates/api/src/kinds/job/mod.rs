//! `Job`.

mod failure_policy;
mod table;
mod update;
mod validation;

use machinery::name::label_fault;
use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, LabelSelector, Object};
use serde_json::{Value, json};

pub(crate) use validation::{validate_job_spec, validate_restart};

use super::workload::{
    set_default, set_template_defaults, template_warnings, validate_fits, validate_selector,
};

pub(crate) struct Job;

/// The labels that tie pods to their job, and their names before they had a prefix.
const CONTROLLER_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

impl Rules for Job {
    fn set_defaults(&self, object: &mut Object) {
        let unset = |field: &str| object.pointer(&format!("/spec/{field}")).is_none();
        let (number, limit) = (unset("completions") && unset("parallelism"), unset("backoffLimitPerIndex"));
        let replacement = if unset("podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
        if number {
            set_default(object, "completions", 1.into());
        }
        set_default(object, "parallelism", 1.into());
        set_default(object, "backoffLimit", if limit { 6 } else { i32::MAX }.into());
        set_default(object, "completionMode", "NonIndexed".into());
        set_default(object, "suspend", false.into());
        set_default(object, "manualSelector", false.into());
        set_default(object, "podReplacementPolicy", replacement.into());
        failure_policy::set_defaults(object);
        set_template_defaults(object);
        take_labels(object);
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
        if is_manual(object) {
            return;
        }
        // A job that took its labels from the template has those that are generated for it, too.
        let taken = object.meta("labels") == object.pointer("/spec/template/metadata/labels");
        generate_selector(object);
        if taken && let Some(labels) = object.pointer("/spec/template/metadata/labels").cloned() {
            object.set_meta("labels", labels);
        }
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        if !is_manual(object) {
            validate_generated(object, faults);
        }
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        validate_job_spec(spec, "spec", faults);
        match &spec["selector"] {
            Value::Null => {
                faults.push(Cause::required("spec.selector", ""));
                validate_fits(None, &spec["template"], faults);
            }
            selector => {
                if validate_selector(selector, "spec.selector", faults) {
                    validate_fits(LabelSelector::from_value(selector).as_ref(), &spec["template"], faults);
                }
            }
        }
        validate_restart(spec, "spec", faults);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        let spec = object.0.get("spec").unwrap_or(&Value::Null);
        let most = spec["completions"].as_i64().filter(|_| spec["completionMode"] == "Indexed");
        // Each pod's host is named after the job and its index.
        let longest = most.filter(|most| *most > 0).map(|most| format!("{}-{}", object.name(), most - 1));
        if let Some(why) = longest.as_deref().and_then(label_fault) {
            faults.push(Cause::invalid("metadata.name", &json!(object.name()), why));
        }
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            update::validate_status(object, faults);
        } else {
            update::validate_spec(object, old, faults);
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.successful", "/status/succeeded")]
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        table::cells(object, now)
    }
}

fn is_manual(object: &Object) -> bool {
    object.pointer("/spec/manualSelector").and_then(Value::as_bool).unwrap_or_default()
}

fn template_label<'a>(object: &'a Object, label: &str) -> Option<&'a str> {
    object.pointer("/spec/template/metadata/labels")?.get(label)?.as_str()
}

/// A job without labels has those of its pods.
fn take_labels(object: &mut Object) {
    let has_some = object.meta("labels").and_then(Value::as_object).is_some_and(|labels| !labels.is_empty());
    let labels = object.pointer("/spec/template/metadata/labels").filter(|_| !has_some).cloned();
    if let Some(labels) = labels {
        object.set_meta("labels", labels);
    }
}

/// Labels and a selector that no other job has.
fn generate_selector(object: &mut Object) {
    let (name, uid) = (object.name().to_owned(), object.uid().to_owned());
    let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
    let Some(Value::Object(template)) = spec.get_mut("template") else { return };
    if let Value::Object(metadata) = template.entry("metadata").or_insert_with(|| json!({}))
        && let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({}))
    {
        for (keys, value) in [(JOB_NAME, &name), (CONTROLLER_UID, &uid)] {
            for key in keys {
                // A label that says something else is reported as a fault.
                labels.entry(key).or_insert_with(|| value.as_str().into());
            }
        }
    }
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    if let Value::Object(selector) = selector
        && let Value::Object(labels) = selector.entry("matchLabels").or_insert_with(|| json!({}))
    {
        labels.entry(CONTROLLER_UID[0]).or_insert_with(|| uid.into());
    }
}

/// Labels and selector must be those that were generated.
fn validate_generated(object: &Object, faults: &mut Faults) {
    let path = "spec.template.metadata.labels";
    let expected = [(CONTROLLER_UID, object.uid()), (JOB_NAME, object.name())];
    for (keys, value) in expected {
        for key in keys {
            match template_label(object, key) {
                Some(found) if found == value => {}
                // Upstream shows all labels.
                Some(_) => {
                    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
                    let why = format!("must be '{value}'");
                    faults.push(Cause::invalid(format!("{path}[{key}]"), labels, &why));
                }
                None => faults.push(Cause::required(format!("{path}[{key}]"), &format!("must be '{value}'"))),
            }
        }
    }
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    // A selector that can't select has that fault, and no more.
    if !validate_selector(selector, "spec.selector", &mut Faults::default()) {
        return;
    }
    let own = |key: &str| selector["matchLabels"][key] == object.uid();
    let only = selector["matchLabels"].as_object().is_some_and(|labels| labels.len() == 1);
    let no_expressions = selector["matchExpressions"].as_array().is_none_or(Vec::is_empty);
    if !(only && no_expressions && CONTROLLER_UID.iter().any(|key| own(key))) {
        faults.push(Cause::invalid("spec.selector", selector, "`selector` not auto-generated"));
    }
}
