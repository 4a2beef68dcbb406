//! `ResourceClaim` and `ResourceClaimTemplate`.

use machinery::metadata::validate_template_metadata;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

use super::request::{default_requests, validate_claim};
use crate::kinds::field::{self, items, part};

pub(crate) struct ResourceClaim;
pub(crate) struct ResourceClaimTemplate;

impl Rules for ResourceClaim {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn looks_at_changes(&self) -> bool {
        false
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(spec) = object.0.get_mut("spec") {
            default_requests(spec);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_claim(part(object, "spec"), "spec", faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec", object, old, faults);
        let (status, before) = (part(object, "status"), part(old, "status"));
        if subresource != "status" {
            return;
        }
        if !before["allocation"].is_null() && !status["allocation"].is_null() {
            field::immutable("status.allocation", object, old, faults);
        }
        if status["allocation"].is_null() && !items(&status["reservedFor"]).is_empty() {
            let why = "may not be specified when `allocation` is not set";
            faults.push(Cause::forbidden("status.reservedFor", why));
        }
        field::unique_by(&status["reservedFor"], "uid", "status.reservedFor", faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("State"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let status = part(object, "status");
        let deleted = object.deletion_timestamp().is_some();
        let mut states = Vec::new();
        if deleted {
            states.push("deleted");
        }
        if !status["allocation"].is_null() {
            states.push("allocated");
            if !items(&status["reservedFor"]).is_empty() {
                states.push("reserved");
            }
        } else if !deleted {
            states.push("pending");
        }
        vec![object.name().into(), states.join(",").into(), age(object, now)]
    }
}

impl Rules for ResourceClaimTemplate {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(spec) = object.0.get_mut("spec").and_then(|spec| spec.get_mut("spec")) {
            default_requests(spec);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_template_metadata(&spec["metadata"], "spec.metadata", faults);
        validate_claim(&spec["spec"], "spec.spec", faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec", object, old, faults);
    }
}
