//! A host's agent writes its own node, the pods bound to it and its own lease, nothing else (upstream's
//! NodeRestriction).

use api::{Object, Status};
use serde_json::Value;

use crate::registry::Named;

const LEASES: &str = "kube-node-lease";

/// 403 unless the object (as it is before the change) belongs to the host.
pub(super) fn check(node: &str, named: &Named<'_>, object: &Object) -> Result<(), Status> {
    let allowed = match (named.resource.group, named.resource.plural) {
        ("", "nodes") => named.name == node,
        ("", "pods") => object.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node),
        ("coordination.k8s.io", "leases") => named.namespace == LEASES && named.name == node,
        _ => true,
    };
    if allowed {
        return Ok(());
    }
    Err(named.forbidden(&format!("node {node:?} may only change its own node, lease and pods")))
}
