//! Pods that a host makes: the mirrors of those that it runs by itself, which use nothing of the API's. Whatever pods on a
//! host use, its agent may read, so it must not choose.

use machinery::{Object, Status};
use objects::{MIRROR, look, used_of_api};
use serde_json::{Map, Value};

use super::super::request::AdmissionRequest;
use super::super::service_account::is_mirror;

/// 403 unless a pod is the mirror of one that the host runs by itself.
pub(super) fn check(node: &str, request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let refused = |why: String| Err(request.named.forbidden(&why));
    if !is_mirror(pod) {
        return refused(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return refused(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    check_owner(node, request, pod)?;
    let empty = Map::new();
    let spec = pod.0.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    match used_of_api(spec) {
        Some(what) => refused(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The one owner of a mirror is the node itself, the very one that is there.
fn check_owner(node: &str, request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let refused = |why: String| Err(request.named.forbidden(&why));
    let owners = pod.meta("ownerReferences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let owner = match owners {
        [] => {
            return refused(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        [owner] => owner,
        _ => {
            return refused(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refused(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refused(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return refused(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let key = objects::key("", "nodes", "", node);
    let kv = request.state.get(key.as_bytes()).ok_or_else(|| Status::not_found("", "nodes", node))?;
    let (found, given) = (look(kv)?, owner["uid"].as_str().unwrap_or_default());
    if given != found.uid() {
        return refused(format!("node {node} UID mismatch: expected {given} got {}", found.uid()));
    }
    Ok(())
}
