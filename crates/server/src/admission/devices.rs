//! Claims of devices that others use too, as their administrator: only namespaces whose owner says so have them (KEP-5018).
//!
//! Follows `AuthorizedForAdmin` of `pkg/registry/resource` upstream.

use machinery::{Cause, Object, Status};
use objects::look;
use serde_json::Value;

use super::request::AdmissionRequest;

/// The label of a namespace in which devices may be claimed so.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The first request of a new claim, or of a template of claims, that its namespace may not make.
pub(crate) fn admin_fault(request: &AdmissionRequest<'_>, object: &Object) -> Result<Option<Cause>, Status> {
    let named = &request.named;
    let requests = match (named.resource.group, named.resource.plural) {
        ("resource.k8s.io", "resourceclaims") => "/spec/devices/requests",
        ("resource.k8s.io", "resourceclaimtemplates") => "/spec/spec/devices/requests",
        _ => return Ok(None),
    };
    let list = object.pointer(requests).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Some(index) = list.iter().position(|request| request["exactly"]["adminAccess"] == true) else {
        return Ok(None);
    };
    let key = objects::key("", "namespaces", "", named.namespace);
    let namespace = request.state.get(key.as_bytes()).map(look).transpose()?;
    let labels = namespace.as_ref().and_then(|namespace| namespace.meta("labels"));
    if labels.is_some_and(|labels| labels[LABEL] == "true") {
        return Ok(None);
    }
    // Upstream names the field as that of a claim, and as if it stood in the request, of templates too.
    let path = format!("spec.devices.requests[{index}].adminAccess");
    let why =
        format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    Ok(Some(Cause::forbidden(path, &why)))
}
