//! Requests for certificates: they are in the name of the user that sends them, and every decision has its time.

use access::{MASTERS, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{Object, Status};
use pki::CertificateRequest;
use serde_json::{Value, json};

use super::request::{AdmissionRequest, Operation};

/// The signer of certificates that users of the API show.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// The request is the sender's own, whatever it says.
pub(super) fn on_create(who: &UserInfo, object: &mut Object) {
    if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
        for field in ["uid", "extra"] {
            spec.remove(field);
        }
        spec.insert("username".into(), who.user.as_str().into());
        spec.insert("groups".into(), json!(who.groups));
    }
}

/// 403 for a request to be signed as one who may do everything: upstream's `certificates/subjectrestriction`.
pub(super) fn check(request: &AdmissionRequest<'_>, object: &Object) -> Result<(), Status> {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
    if request.operation != Operation::Create || text("/spec/signerName") != CLIENT {
        return Ok(());
    }
    let pem = STANDARD.decode(text("/spec/request")).unwrap_or_default();
    // What is no request was refused before.
    let Ok(asked) = CertificateRequest::from_pem(&pem) else { return Ok(()) };
    if asked.organizations.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
        return Err(request.named.forbidden(&why));
    }
    Ok(())
}

/// The times of conditions that are new or changed at `now`.
pub(super) fn on_update(object: &mut Object, old: &Object, now: &str) {
    let before = old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let status = object.0.get_mut("status");
    let conditions = status.and_then(|status| status.get_mut("conditions")).and_then(Value::as_array_mut);
    let now = Value::from(now);
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.clone();
        }
        let known = before.iter().find(|known| known["type"] == condition["type"]);
        let known = known.filter(|known| known["status"] == condition["status"]);
        if condition["lastTransitionTime"].is_null() {
            let since =
                known.map(|known| known["lastTransitionTime"].clone()).filter(|since| !since.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
        }
    }
}
