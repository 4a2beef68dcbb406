//! A host's agent writes its own node, the pods bound to it and its own lease, nothing else (upstream's
//! NodeRestriction).

use api::{Object, Status};
use serde_json::Value;

use crate::registry::Named;

const LEASES: &str = "kube-node-lease";
/// Labels of Kubernetes' own that an agent says of its host; every host here is of the control plane.
const OWN_LABELS: [&str; 16] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/instance-type",
    "kubernetes.io/os",
    "node-role.kubernetes.io/control-plane",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

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

/// 403 if a host gives its own node what only others may: taints, and labels that say where pods may run.
pub(super) fn check_node(
    node: &str,
    named: &Named<'_>,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let before = old.map(Object::labels).unwrap_or_default();
    let labels = new.labels();
    let names = labels.keys().chain(before.keys());
    let mut forbidden: Vec<&str> =
        names.copied().filter(|name| labels.get(name) != before.get(name) && !may_label(name)).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    if !forbidden.is_empty() {
        let what = if old.is_some() { "modify labels" } else { "set the following labels" };
        let list = forbidden.join(", ");
        return Err(named.forbidden(&format!("node {node:?} is not allowed to {what}: {list}")));
    }
    let taints = |node: &Object| node.pointer("/spec/taints").cloned();
    if old.is_some_and(|old| taints(old) != taints(new)) {
        return Err(named.forbidden(&format!("node {node:?} is not allowed to modify taints")));
    }
    Ok(())
}

/// Whether a host may say so of itself: what Kubernetes doesn't know, and what its agents are known to say.
fn may_label(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let known = !(within("kubernetes.io") || within("k8s.io"));
    known || OWN_LABELS.contains(&name) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_says_nothing_of_itself_that_pods_are_kept_apart_by() {
        let node = |labels: Value, taints: Value| {
            let value = json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}});
            Object::from_value(value).unwrap()
        };
        let resource = api::resource("", "v1", "nodes").unwrap();
        let named = Named { resource, namespace: "", name: "n1" };
        let old = node(json!({"kubernetes.io/os": "linux"}), json!([{"key": "a", "effect": "NoSchedule"}]));
        let check = |labels: Value, taints: Value| {
            check_node("n1", &named, &node(labels, taints), Some(&old)).map_err(|status| status.message)
        };
        let taints = || json!([{"key": "a", "effect": "NoSchedule"}]);
        let fine =
            json!({"kubernetes.io/hostname": "n1", "example.com/rack": "7", "node.kubernetes.io/x": "y"});
        assert_eq!(check(fine, taints()), Ok(()));
        let why = |what: &str| {
            Err(format!("nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify {what}"))
        };
        let secret = json!({"kubernetes.io/os": "linux", "node-restriction.kubernetes.io/fips": "true"});
        assert_eq!(check(secret, taints()), why("labels: node-restriction.kubernetes.io/fips"));
        let unknown = json!({"kubernetes.io/os": "linux", "node-role.kubernetes.io/master": ""});
        assert_eq!(check(unknown, taints()), why("labels: node-role.kubernetes.io/master"));
        assert_eq!(check(json!({"kubernetes.io/os": "linux"}), json!([])), why("taints"));
    }
}
