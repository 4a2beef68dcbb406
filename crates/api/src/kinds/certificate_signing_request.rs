//! `CertificateSigningRequest`.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, keep, name, time};
use serde_json::{Value, json};

use super::field::{self, items, part, paths, text};

pub(crate) struct CertificateSigningRequest;

/// What the subresource `approval` decides; everything else is the signer's to say.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const CONDITIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
const SHORTEST_SECONDS: i64 = 600;

impl Rules for CertificateSigningRequest {
    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        keep(&mut object.0, Some(&old.0), "spec");
        match subresource {
            "approval" => take_decisions(object, old, true),
            "status" => take_decisions(object, old, false),
            _ => {}
        }
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        if !is_request(text(spec, "request")) {
            let why = "must be a PEM block of type CERTIFICATE REQUEST";
            faults.push(Cause::invalid("spec.request", &spec["request"], why));
        }
        let usages = &spec["usages"];
        field::require(usages, "spec.usages", "usages required", faults);
        field::unique(usages, "spec.usages", faults);
        validate_signer(&spec["signerName"], "spec.signerName", faults);
        let seconds = &spec["expirationSeconds"];
        if seconds.as_i64().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            faults.push(Cause::invalid("spec.expirationSeconds", seconds, why));
        }
        validate_conditions(object, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource.is_empty() {
            return;
        }
        let (new, before) = (conditions(object), conditions(old));
        for kind in CONDITIONS {
            let of_kind = |condition: &&Value| condition["type"] == kind;
            let (new, before) = (new.iter().find(of_kind), before.iter().find(of_kind));
            let is_approval = subresource == "approval";
            let decided_here = DECISIONS.contains(&kind) == is_approval;
            let path = "status.conditions";
            if before.is_some() && new.is_none() {
                let why = format!("updates may not remove a condition of type {kind:?}");
                faults.push(Cause::forbidden(path, &why));
            } else if new.is_some() && before.is_none() && !decided_here {
                let why = format!("updates may not add a condition of type {kind:?}");
                faults.push(Cause::forbidden(path, &why));
            } else if is_approval && new.is_some() && before.is_some() && new != before {
                let why = format!("updates may not change a condition of type {kind:?}");
                faults.push(Cause::forbidden(path, &why));
            }
        }
        let certificate = &part(old, "status")["certificate"];
        if !certificate.is_null() && part(object, "status")["certificate"] != *certificate {
            let why = "field is immutable once it is set";
            faults.push(Cause::forbidden("status.certificate", why));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.signerName", "/spec/signerName")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Age"),
                Column::text("SignerName"),
                Column::text("Requestor"),
                Column::text("RequestedDuration"),
                Column::text("Condition"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let signer = spec["signerName"].as_str().filter(|signer| !signer.is_empty()).unwrap_or("<none>");
        let duration =
            spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".into(), time::human_duration);
        vec![
            object.name().into(),
            age(object, now),
            signer.into(),
            text(spec, "username").into(),
            duration.into(),
            state(object).into(),
        ]
    }
}

/// In one word: how far it is.
fn state(object: &Object) -> String {
    let has = |kind: &str| conditions(object).iter().any(|condition| condition["type"] == kind);
    let mut state = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(part(object, "status"), "certificate").is_empty() {
        state.push_str(",Issued");
    }
    state
}

fn conditions(object: &Object) -> &[Value] {
    items(&part(object, "status")["conditions"])
}

/// Through `approval` only the decisions may change; otherwise all but them.
fn take_decisions(object: &mut Object, old: &Object, decisions: bool) {
    let is_ours = |condition: &&Value| {
        condition["type"].as_str().is_some_and(|kind| DECISIONS.contains(&kind)) == decisions
    };
    let mut merged: Vec<Value> = conditions(old).iter().filter(|c| !is_ours(c)).cloned().collect();
    merged.extend(conditions(object).iter().filter(is_ours).cloned());
    let foreign: Vec<Value> = conditions(object)
        .iter()
        .filter(|c| !is_ours(c) && !conditions(old).iter().any(|known| known["type"] == c["type"]))
        .cloned()
        .collect();
    // What must not be added is reported, not dropped.
    merged.extend(foreign);
    if decisions {
        keep(&mut object.0, Some(&old.0), "status");
    }
    let status = object.0.entry("status").or_insert_with(|| json!({}));
    if let Value::Object(status) = status {
        if merged.is_empty() {
            status.remove("conditions");
        } else {
            status.insert("conditions".into(), merged.into());
        }
    }
}

fn is_request(encoded: &str) -> bool {
    let Ok(pem) = STANDARD.decode(encoded) else { return false };
    let Ok(pem) = std::str::from_utf8(&pem) else { return false };
    let body = pem.split_once("-----BEGIN CERTIFICATE REQUEST-----");
    let body = body.and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE REQUEST-----"));
    let Some((body, _)) = body else { return false };
    let body: String = body.split_whitespace().collect();
    // A sequence in DER.
    STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30))
}

/// `example.com/name`, the domain with at least one dot.
fn validate_signer(signer: &Value, path: &str, faults: &mut Faults) {
    let name = signer.as_str().unwrap_or_default();
    if !field::require(signer, path, "", faults) {
        return;
    }
    match name.split_once('/') {
        Some((domain, rest)) if !rest.contains('/') => {
            if let Some(why) = name::subdomain_fault(domain) {
                faults.push(Cause::invalid(path, signer, why));
            } else if !domain.contains('.') {
                let why = "should be a domain with at least two segments separated by dots";
                faults.push(Cause::invalid(path, signer, why));
            }
            if let Some(why) = name::subdomain_fault(rest) {
                faults.push(Cause::invalid(path, signer, why));
            }
        }
        _ => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            faults.push(Cause::invalid(path, signer, why));
        }
    }
}

fn validate_conditions(object: &Object, faults: &mut Faults) {
    let list = &part(object, "status")["conditions"];
    let mut kinds = HashSet::new();
    for (path, condition) in paths(list, "status.conditions") {
        let kind = text(condition, "type");
        if field::require(&condition["type"], format!("{path}.type"), "", faults) && !kinds.insert(kind) {
            faults.push(Cause::duplicate(format!("{path}.type"), &condition["type"]));
        }
        let status = &condition["status"];
        let path = format!("{path}.status");
        if !field::require(status, &path, "", faults) {
            continue;
        }
        let choices: &[&str] =
            if CONDITIONS.contains(&kind) { &["True"] } else { &["True", "False", "Unknown"] };
        field::one_of(status, path, choices, faults);
    }
    let has = |kind: &str| conditions(object).iter().any(|condition| condition["type"] == kind);
    if has("Approved") && has("Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        faults.push(Cause::invalid("status.conditions", &"Denied".into(), why));
    }
}
