//! Whether the cluster is at rest: every host Ready, every replica serving, every host with its share.

use crate::Error;
use crate::sight::{is_true, ready_endpoints, text};
use crate::workload::Workload;
use client::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What was read of a cluster at one time.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) nodes: Vec<Value>,
    pub(crate) deployment: Value,
    pub(crate) pods: Vec<Value>,
    pub(crate) slices: Vec<Value>,
}

impl Picture {
    pub(crate) async fn take(client: &Client, workload: &Workload) -> Result<Self, Error> {
        let Workload { namespace, deployment, service, .. } = workload;
        let list = async |path: String| -> Result<Vec<Value>, Error> {
            let list = client.get(&path).await?;
            Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
        };
        let selector = workload.selector();
        Ok(Picture {
            nodes: list("/api/v1/nodes".into()).await?,
            deployment: client
                .get(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}"))
                .await?,
            pods: list(format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")).await?,
            slices: list(format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices\
                 ?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
            ))
            .await?,
        })
    }

    /// The pods that serve, host by host.
    pub(crate) fn serving(&self) -> BTreeMap<String, Vec<&Value>> {
        let mut hosts: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| is_true(p, "Ready") && !is_going(p)) {
            hosts.entry(text(pod, "/spec/nodeName").to_owned()).or_default().push(pod);
        }
        hosts
    }

    /// What is not as it should be; empty when the cluster is at rest. How the pods are spread is not asked.
    pub(crate) fn unready(&self, hosts: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        for host in hosts {
            match self.nodes.iter().find(|n| text(n, "/metadata/name") == host) {
                None => wrong.push(format!("the node {host} is missing")),
                Some(node) if !is_true(node, "Ready") => wrong.push(format!("the node {host} is not Ready")),
                Some(_) => {}
            }
        }
        let number = |pointer| self.deployment.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let wanted = self.deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let name = text(&self.deployment, "/metadata/name");
        let ready = number("/status/readyReplicas");
        if ready != wanted || number("/status/observedGeneration") < number("/metadata/generation") {
            wrong.push(format!("the Deployment {name} has {ready} of {wanted} replicas ready"));
        }
        for pod in &self.pods {
            let (name, host) = (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"));
            if is_going(pod) {
                wrong.push(format!("the pod {name} on {host} is being deleted"));
            } else if is_finished(pod) {
                // Kept for its log; it serves nobody.
            } else if !is_true(pod, "Ready") {
                let place = if host.is_empty() { "not placed".into() } else { format!("on {host}") };
                wrong.push(format!("the pod {name} ({place}) is not Ready{}", why(pod)));
            }
        }
        let endpoints: usize = self.slices.iter().map(|s| ready_endpoints(s).len()).sum();
        if wrong.is_empty() && endpoints as u64 != wanted {
            wrong.push(format!("the Service has {endpoints} endpoints for {wanted} replicas"));
        }
        wrong
    }

    /// A pod to delete so that it comes back on a host that has none: the newest of the fullest host. None when
    /// every host that could have a pod has one.
    pub(crate) fn misplaced(&self, hosts: &[String]) -> Option<&Value> {
        let serving = self.serving();
        let empty = hosts.iter().any(|h| !serving.contains_key(h));
        let fullest = serving.values().filter(|pods| pods.len() > 1).max_by_key(|pods| pods.len())?;
        let created = |pod: &&&Value| text(pod, "/metadata/creationTimestamp").to_owned();
        fullest.iter().max_by_key(created).filter(|_| empty).copied()
    }
}

fn is_going(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What the pod says about itself.
fn why(pod: &Value) -> String {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let waiting = statuses.into_iter().flatten().find_map(|s| s.pointer("/state/waiting/reason")?.as_str());
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let unplaced =
        conditions.into_iter().flatten().find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    let reason = waiting.or_else(|| unplaced?.get("message")?.as_str());
    reason.map(|r| format!(": {r}")).unwrap_or_default()
}

/// Deletes a pod, so that its ReplicaSet makes another.
pub(crate) async fn move_pod(client: &Client, pod: &Value) -> Result<(), Error> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    match client.delete(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), &json!({})).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: bool) -> Value {
        json!([{"type": "Ready", "status": if status { "True" } else { "False" }}])
    }

    fn pod(name: &str, host: &str, is_ready: bool) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": name}, "spec": {"nodeName": host},
               "status": {"conditions": ready(is_ready)}})
    }

    fn at_rest() -> Picture {
        let endpoint =
            |host: &str| json!({"addresses": [host], "nodeName": host, "conditions": {"ready": true}});
        Picture {
            nodes: ["n1", "n2"]
                .map(|n| json!({"metadata": {"name": n}, "status": {"conditions": ready(true)}}))
                .into(),
            deployment: json!({"metadata": {"name": "web", "generation": 1}, "spec": {"replicas": 2},
                "status": {"readyReplicas": 2, "observedGeneration": 1}}),
            pods: vec![pod("a", "n1", true), pod("b", "n2", true)],
            slices: vec![json!({"endpoints": [endpoint("n1"), endpoint("n2")]})],
        }
    }

    #[test]
    fn says_what_is_not_ready() {
        let hosts = ["n1".to_owned(), "n2".to_owned()];
        assert_eq!(at_rest().unready(&hosts), Vec::<String>::new());
        type Break = fn(&mut Picture);
        let cases: [(Break, &str); 7] = [
            (|p| drop(p.nodes.pop()), "the node n2 is missing"),
            (|p| p.nodes[0]["status"] = json!({}), "the node n1 is not Ready"),
            (|p| p.deployment["status"]["readyReplicas"] = json!(1), "the Deployment web has 1 of 2"),
            (|p| p.pods[0] = pod("a", "n1", false), "the pod a (on n1) is not Ready"),
            (
                |p| p.pods[0]["metadata"]["deletionTimestamp"] = json!("now"),
                "the pod a on n1 is being deleted",
            ),
            (|p| p.slices.clear(), "the Service has 0 endpoints for 2 replicas"),
            (
                |p| {
                    p.pods[1] = json!({"metadata": {"name": "b"}, "status": {"conditions": [
                        {"type": "PodScheduled", "status": "False", "message": "no room"}]}});
                },
                "the pod b (not placed) is not Ready: no room",
            ),
        ];
        for (wreck, says) in cases {
            let mut picture = at_rest();
            wreck(&mut picture);
            let unready = picture.unready(&hosts).join("; ");
            assert!(unready.contains(says), "{says}: {unready}");
        }
    }

    #[test]
    fn finds_the_pod_to_move() {
        let hosts = ["n1".to_owned(), "n2".to_owned()];
        for (pods, expected) in [
            (vec![pod("a", "n1", true), pod("b", "n2", true)], None),
            (vec![pod("a", "n2", true), pod("b", "n2", true)], Some("b")),
            (vec![pod("b", "n2", true), pod("a", "n2", true)], Some("b")),
            (vec![pod("a", "n2", true)], None),
            (vec![pod("a", "n1", true), pod("b", "n2", true), pod("c", "n2", true)], None),
        ] {
            let picture = Picture { pods, ..Picture::default() };
            let found = picture.misplaced(&hosts).map(|p| text(p, "/metadata/name"));
            assert_eq!(found, expected);
        }
    }
}
