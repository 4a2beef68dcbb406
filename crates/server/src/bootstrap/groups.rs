//! The APIService of every group and version that is served here.

use api::resources;
use serde_json::{Value, json};

/// How far ahead a group stands of others, for clients that find a kind in several of them.
const PRIORITIES: [(&str, u32); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];

/// The API services.
pub(super) fn groups(now: &str) -> Vec<Value> {
    let mut served: Vec<(&str, &str)> =
        resources().map(|resource| (resource.group, resource.version)).collect();
    served.dedup();
    let known = served.into_iter().filter_map(|(group, version)| {
        let (_, priority) = PRIORITIES.iter().find(|(known, _)| *known == group)?;
        Some(service(group, version, *priority, now))
    });
    known.collect()
}

fn service(group: &str, version: &str, priority: u32, now: &str) -> Value {
    let version_priority = match (group, version) {
        ("", _) => 1,
        ("flowcontrol.apiserver.k8s.io", _) => 21,
        (_, "v2") => 30,
        _ => 15,
    };
    let mut spec = json!({
        "version": version, "groupPriorityMinimum": priority, "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": spec,
        "status": {"conditions": [{
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": now,
        }]},
    })
}
