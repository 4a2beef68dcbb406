//! The objects of a preload.

use super::{Group, Made};
use serde_json::{Value, json};

/// What tells the pods of one ReplicaSet from those of another of its Deployment. The controllers take any value, as
/// long as the set's labels and its pods' agree on it.
const HASH: &str = "6d4cf56db6";

pub(super) fn namespace(name: &str) -> Made {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    ("/api/v1/namespaces".into(), object)
}

/// The pod's part of a template. With what the server adds (defaults, the token's volume, managed fields), a pod is
/// stored in some 2 KB.
fn spec() -> Value {
    json!({
        "schedulingGates": [{"name": "holdfast.dev/preloaded"}],
        "containers": [{
            "name": "server",
            "image": "registry.example/shop/server:1.27.4",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
        }],
    })
}

fn labels(group: &Group) -> Value {
    json!({"app.kubernetes.io/name": group.name, "app.kubernetes.io/part-of": "preload"})
}

fn labels_of_set(group: &Group) -> Value {
    let mut labels = labels(group);
    labels["pod-template-hash"] = json!(HASH);
    labels
}

pub(super) fn pod(group: &Group, number: usize) -> Made {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{}-{HASH}-{number:05}", group.name),
            "labels": labels_of_set(group),
        },
        "spec": spec(),
    });
    (format!("/api/v1/namespaces/{}/pods", group.namespace), object)
}

pub(super) fn replica_set(group: &Group) -> Made {
    let labels = labels_of_set(group);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": format!("{}-{HASH}", group.name), "labels": labels},
        "spec": {
            "replicas": group.pods,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec()},
        },
    });
    (format!("/apis/apps/v1/namespaces/{}/replicasets", group.namespace), object)
}

pub(super) fn deployment(group: &Group) -> Made {
    let labels = labels(group);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": group.name, "labels": labels},
        "spec": {
            "replicas": group.pods,
            "selector": {"matchLabels": labels},
            // The largest stands for none: these pods are never ready, and that is no news in ten minutes either.
            "progressDeadlineSeconds": i32::MAX,
            "template": {"metadata": {"labels": labels}, "spec": spec()},
        },
    });
    (format!("/apis/apps/v1/namespaces/{}/deployments", group.namespace), object)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes the controllers take everything as it is.
    #[test]
    fn owners_mean_what_is_theirs() {
        let group = Group { namespace: "x".into(), name: "load-1".into(), pods: 3 };
        let ((_, pod), (_, set), (_, deployment)) = (pod(&group, 0), replica_set(&group), deployment(&group));
        assert_eq!(pod["metadata"]["labels"], set["spec"]["selector"]["matchLabels"]);
        assert_eq!(pod["metadata"]["labels"], set["spec"]["template"]["metadata"]["labels"]);
        assert_eq!((&set["spec"]["replicas"], &deployment["spec"]["replicas"]), (&json!(3), &json!(3)));
        let mut template = set["spec"]["template"].clone();
        template["metadata"]["labels"].as_object_mut().unwrap().remove("pod-template-hash");
        assert_eq!(template, deployment["spec"]["template"]);
        let of_set = set["metadata"]["labels"].as_object().unwrap();
        let selector = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(selector.iter().all(|(key, value)| of_set.get(key) == Some(value)));
        assert!(pod["spec"]["schedulingGates"][0]["name"].is_string(), "it is placed nowhere");
    }
}
