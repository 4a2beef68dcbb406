//! What a host may say of its own node: neither what keeps pods apart, nor what it can be deleted by.

use machinery::{Object, Status};
use objects::Named;
use serde_json::Value;

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

/// 403 if a host gives its own node what only others may: taints, and labels that say where pods may run.
pub(super) fn check(node: &str, named: &Named<'_>, new: &Object, old: Option<&Object>) -> Result<(), Status> {
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
    let refused = |what: &str| Err(named.forbidden(&format!("node {node:?} is not allowed to {what}")));
    let at = |object: Option<&Object>, path: &str| {
        object.and_then(|object| object.pointer(path).cloned()).filter(|value| !is_empty(value))
    };
    let changes = |path: &str| at(Some(new), path) != at(old, path);
    if old.is_some() && changes("/spec/taints") {
        return refused("modify taints");
    }
    // An object that is owned goes with its owner.
    if changes("/metadata/ownerReferences") {
        return refused("modify ownerReferences");
    }
    if at(Some(new), "/spec/configSource").is_some() && changes("/spec/configSource") {
        return refused("update configSource to a new non-nil configSource");
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

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
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
        let judged = |labels: Value, taints: Value| {
            check("n1", &named, &node(labels, taints), Some(&old)).map_err(|status| status.message)
        };
        let taints = || json!([{"key": "a", "effect": "NoSchedule"}]);
        let fine =
            json!({"kubernetes.io/hostname": "n1", "example.com/rack": "7", "node.kubernetes.io/x": "y"});
        assert_eq!(judged(fine, taints()), Ok(()));
        let why = |what: &str| {
            Err(format!("nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify {what}"))
        };
        let secret = json!({"kubernetes.io/os": "linux", "node-restriction.kubernetes.io/fips": "true"});
        assert_eq!(judged(secret, taints()), why("labels: node-restriction.kubernetes.io/fips"));
        let unknown = json!({"kubernetes.io/os": "linux", "node-role.kubernetes.io/master": ""});
        assert_eq!(judged(unknown, taints()), why("labels: node-role.kubernetes.io/master"));
        assert_eq!(judged(json!({"kubernetes.io/os": "linux"}), json!([])), why("taints"));
    }
}
