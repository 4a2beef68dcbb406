//! Volumes and claims: they stay while they are used, get the default class, and grow where their class lets
//! them.
//!
//! Follows `storage/…` of `plugin/pkg/admission` upstream.

use machinery::{Object, Quantity, Status};
use objects::{BETA_CLASS, load};
use serde_json::{Value, json};

use super::default_class::newest_default;
use super::request::{AdmissionRequest, Operation};

const GROUP: &str = "storage.k8s.io";
const DEFAULT_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Keeps a new volume or claim until nobody uses it any more.
pub(super) fn protect(object: &mut Object, finalizer: &str) {
    let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.to_owned());
        object.set_meta("finalizers", finalizers);
    }
}

/// Gives a new claim that says nothing of a class the default one, if there is one.
pub(super) fn set_default_class(request: &AdmissionRequest<'_>, claim: &mut Object) {
    let beta = claim.meta("annotations").is_some_and(|annotations| annotations[BETA_CLASS].is_string());
    if beta || claim.pointer("/spec/storageClassName").is_some_and(|class| !class.is_null()) {
        return;
    }
    let Some(class) = newest_default(request.state, GROUP, "storageclasses", &DEFAULT_MARKS) else { return };
    if let Value::Object(spec) = claim.0.entry("spec").or_insert_with(|| json!({})) {
        spec.insert("storageClassName".into(), class.into());
    }
}

/// 403 unless a claim that shall grow can.
pub(super) fn check_growth(
    request: &AdmissionRequest<'_>,
    claim: &Object,
    old: &Object,
) -> Result<(), Status> {
    if request.operation != Operation::Update || !request.subresource.is_empty() {
        return Ok(());
    }
    let size = |claim: &Object| {
        claim
            .pointer("/spec/resources/requests/storage")
            .and_then(Value::as_str)
            .and_then(|text| Quantity::parse(text).ok())
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old.pointer("/status/phase").is_none_or(|phase| phase != "Bound") {
        return Err(request.named.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let beta = claim.meta("annotations").and_then(|annotations| annotations[BETA_CLASS].as_str());
    let class = beta.or_else(|| claim.pointer("/spec/storageClassName").and_then(Value::as_str));
    let key = objects::key(GROUP, "storageclasses", "", class.unwrap_or_default());
    let class = request.state.get(key.as_bytes()).map(|kv| load(kv)).transpose()?;
    if class.is_some_and(|class| class.0.get("allowVolumeExpansion") == Some(&Value::Bool(true))) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
        support resize";
    Err(request.named.forbidden(why))
}
