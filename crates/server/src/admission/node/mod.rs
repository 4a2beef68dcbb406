//! A host's agent writes its own node, what is on it and what it is asked for there, nothing else.
//!
//! Follows `plugin/pkg/admission/noderestriction` upstream, its sentences included.

mod mirror;
mod own;
mod status;

use access::{NODE_PREFIX, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{Object, Status};
use objects::{ADDRESS_NAMESPACE, Named, may_make_of_address};
use pki::CertificateRequest;
use serde_json::Value;

use super::request::{AdmissionRequest, Operation};

const LEASES: &str = "kube-node-lease";
/// The signers of agents' certificates.
const AGENTS: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];

/// 403 if a host creates what isn't its own.
pub(super) fn check_create(request: &AdmissionRequest<'_>, object: &Object) -> Result<(), Status> {
    let Some(node) = host(request.who, &request.named)? else { return Ok(()) };
    let named = &request.named;
    match (named.resource.group, named.resource.plural) {
        ("", "nodes") => check_name(node, named),
        ("", "pods") => mirror::check(node, request, object),
        ("", "persistentvolumeclaims") => Err(named.forbidden("may only update PVC status")),
        ("coordination.k8s.io", "leases") => check_lease(node, named),
        ("storage.k8s.io", "csinodes") => check_csi_node(node, named),
        ("resource.k8s.io", "resourceslices") => check_slice(node, request, object),
        ("certificates.k8s.io", "certificatesigningrequests") => check_certificate(node, named, object),
        _ => Ok(()),
    }
}

/// 403 if a host changes or deletes what isn't its own; `old` is the object as it is.
pub(super) fn check_change(request: &AdmissionRequest<'_>, old: &Object) -> Result<(), Status> {
    let Some(node) = host(request.who, &request.named)? else { return Ok(()) };
    let named = &request.named;
    let deletes = request.operation == Operation::Delete;
    match (named.resource.group, named.resource.plural, request.subresource) {
        ("", "nodes", _) => check_name(node, named),
        ("", "pods", "") if deletes => check_pod(node, named, old, "delete pods"),
        ("", "pods", "") => Err(named.forbidden(&format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
        ("", "pods", "status") => check_pod(node, named, old, "update pod status for pods"),
        ("", "pods", other) => Err(named.forbidden(&format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        ))),
        ("", "persistentvolumeclaims", "status") => Ok(()),
        ("", "persistentvolumeclaims", _) => Err(named.forbidden("may only update PVC status")),
        // Whether that is the Lease of an address is seen by what is made of it.
        ("coordination.k8s.io", "leases", "") if named.namespace == ADDRESS_NAMESPACE && !deletes => Ok(()),
        ("coordination.k8s.io", "leases", _) => check_lease(node, named),
        ("storage.k8s.io", "csinodes", _) => check_csi_node(node, named),
        ("resource.k8s.io", "resourceslices", _) => check_slice(node, request, old),
        _ => Ok(()),
    }
}

/// 403 if a host makes of its own what only others may.
pub(super) fn check_outcome(
    request: &AdmissionRequest<'_>,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let Some(node) = host(request.who, &request.named)? else { return Ok(()) };
    let named = &request.named;
    match (named.resource.group, named.resource.plural, request.subresource, old) {
        ("", "nodes", _, old) => own::check(node, named, new, old),
        ("coordination.k8s.io", "leases", _, Some(old)) if named.namespace == ADDRESS_NAMESPACE => {
            check_address(node, named, new, old)
        }
        ("", "pods", "status", Some(old)) => status::check_pod(node, named, new, old),
        ("", "persistentvolumeclaims", "status", Some(old)) => status::check_claim(node, named, new, old),
        ("", "persistentvolumes", _, Some(old)) => status::check_volume(node, named, new, old),
        _ => Ok(()),
    }
}

/// 403 if a host evicts a pod that isn't on it.
pub(super) fn check_eviction(who: &UserInfo, pod: &Named<'_>, found: &Object) -> Result<(), Status> {
    let Some(node) = host(who, pod)? else { return Ok(()) };
    check_pod(node, pod, found, "evict pods")
}

/// The host whose agent asks, if it is one; 403 for an agent that doesn't say of which.
fn host<'a>(who: &'a UserInfo, named: &Named<'_>) -> Result<Option<&'a str>, Status> {
    match who.node() {
        Some("") => Err(named.forbidden(&format!("could not determine node from user {:?}", who.user))),
        node => Ok(node),
    }
}

fn check_name(node: &str, named: &Named<'_>) -> Result<(), Status> {
    if named.name == node {
        return Ok(());
    }
    Err(named.forbidden(&format!("node {node:?} is not allowed to modify node {:?}", named.name)))
}

fn check_pod(node: &str, named: &Named<'_>, pod: &Object, what: &str) -> Result<(), Status> {
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node) {
        return Ok(());
    }
    Err(named.forbidden(&format!("node {node:?} can only {what} with spec.nodeName set to itself")))
}

fn check_lease(node: &str, named: &Named<'_>) -> Result<(), Status> {
    if named.namespace != LEASES {
        let why = format!("can only access leases in the {LEASES:?} system namespace");
        return Err(named.forbidden(&why));
    }
    if named.name == node {
        return Ok(());
    }
    Err(named.forbidden("can only access node lease with the same name as the requesting node"))
}

/// Of a Service's address a host says that it takes it, or gives it up.
fn check_address(node: &str, named: &Named<'_>, new: &Object, old: &Object) -> Result<(), Status> {
    if may_make_of_address(node, named.name, old, new) {
        return Ok(());
    }
    check_lease(node, named)
}

fn check_csi_node(node: &str, named: &Named<'_>) -> Result<(), Status> {
    if named.name == node {
        return Ok(());
    }
    Err(named.forbidden("can only access CSINode with the same name as the requesting node"))
}

fn check_slice(node: &str, request: &AdmissionRequest<'_>, slice: &Object) -> Result<(), Status> {
    if slice.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node) {
        return Ok(());
    }
    let verb = match request.operation {
        Operation::Create => "create",
        Operation::Delete => "delete",
        Operation::Update | Operation::Connect => "update",
    };
    let why = format!("can only {verb} ResourceSlice with the same NodeName as the requesting node");
    Err(request.named.forbidden(&why))
}

/// An agent asks for no other agent's name.
fn check_certificate(node: &str, named: &Named<'_>, object: &Object) -> Result<(), Status> {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
    if !AGENTS.contains(&text("/spec/signerName")) {
        return Ok(());
    }
    let pem = STANDARD.decode(text("/spec/request")).unwrap_or_default();
    let asked = CertificateRequest::from_pem(&pem)
        .map_err(|error| named.forbidden(&format!("unable to parse csr: {error}")))?;
    let other = asked.common_name.strip_prefix(NODE_PREFIX).is_some_and(|other| other != node);
    if other {
        return Err(named.forbidden(&format!("can only create a node CSR with CN={NODE_PREFIX}{node}")));
    }
    Ok(())
}
