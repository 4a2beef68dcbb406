//! `ValidatingWebhookConfiguration` and `MutatingWebhookConfiguration`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::matching::{default_rules, validate_conditions, validate_rule};
use crate::kinds::client_config::{validate_client, validate_review_versions};
use crate::kinds::field::{self, default, items, part, paths, text};
use crate::kinds::workload::validate_selector;
use crate::policy::compile_conditions;

pub(crate) struct ValidatingWebhookConfiguration;
pub(crate) struct MutatingWebhookConfiguration;

const COLUMNS: &[Column] = &[Column::text("Name"), Column::integer("Webhooks"), Column::text("Age")];

impl Rules for ValidatingWebhookConfiguration {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object, false);
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

impl Rules for MutatingWebhookConfiguration {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object, true);
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

fn cells(object: &Object, now: i64) -> Vec<Value> {
    vec![object.name().into(), items(part(object, "webhooks")).len().into(), age(object, now)]
}

fn set_defaults(object: &mut Object, mutating: bool) {
    let webhooks = object.0.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        default(webhook, "failurePolicy", "Fail");
        default(webhook, "matchPolicy", "Equivalent");
        default(webhook, "namespaceSelector", json!({}));
        default(webhook, "objectSelector", json!({}));
        default(webhook, "timeoutSeconds", 10);
        if mutating {
            default(webhook, "reinvocationPolicy", "Never");
        }
        default_rules(webhook, "rules");
        if let Some(service) = webhook.get_mut("clientConfig").and_then(|config| config.get_mut("service")) {
            default(service, "port", 443);
        }
    }
}

fn validate(object: &Object, faults: &mut Faults) {
    let webhooks = part(object, "webhooks");
    for (path, webhook) in paths(webhooks, "webhooks") {
        validate_webhook(webhook, &path, faults);
        let path = format!("{path}.admissionReviewVersions");
        validate_review_versions(&webhook["admissionReviewVersions"], &path, faults);
    }
    field::unique_by(webhooks, "name", "webhooks", faults);
}

fn validate_webhook(webhook: &Value, path: &str, faults: &mut Faults) {
    let name = &webhook["name"];
    if field::require(name, format!("{path}.name"), "", faults) {
        let text = name.as_str().unwrap_or_default();
        let why = match name::subdomain_fault(text) {
            None if text.split('.').count() < 3 => {
                Some("should be a domain with at least three segments separated by dots")
            }
            fault => fault,
        };
        faults.extend(why.map(|why| Cause::invalid(format!("{path}.name"), name, why)));
    }
    for (path, rule) in paths(&webhook["rules"], &format!("{path}.rules")) {
        validate_rule(rule, &path, faults);
    }
    let side_effects = &webhook["sideEffects"];
    if side_effects.is_null() {
        let why = "must specify one of None, NoneOnDryRun";
        faults.push(Cause::required(format!("{path}.sideEffects"), why));
    } else if matches!(text(webhook, "sideEffects"), "Some" | "Unknown") {
        let choices = ["None", "NoneOnDryRun"];
        field::one_of(side_effects, format!("{path}.sideEffects"), &choices, faults);
    }
    let seconds = &webhook["timeoutSeconds"];
    if seconds.as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        faults.push(Cause::invalid(format!("{path}.timeoutSeconds"), seconds, why));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        validate_selector(&webhook[selector], &format!("{path}.{selector}"), faults);
    }
    validate_client(&webhook["clientConfig"], &format!("{path}.clientConfig"), faults);
    let (conditions, path) = (&webhook["matchConditions"], format!("{path}.matchConditions"));
    validate_conditions(conditions, &path, faults);
    compile_conditions(conditions, false, &path, faults);
}
