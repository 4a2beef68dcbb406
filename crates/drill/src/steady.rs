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
    /// The StatefulSet beside the Deployment, where the workload has one.
    pub(crate) stateful: Option<Value>,
    pub(crate) stateful_pods: Vec<Value>,
}

impl Picture {
    pub(crate) async fn take(client: &Client, workload: &Workload) -> Result<Self, Error> {
        let Workload { namespace, deployment, service, .. } = workload;
        let list = async |path: String| -> Result<Vec<Value>, Error> {
            let list = client.get(&path).await?;
            Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
        };
        let selector = workload.selector();
        let (stateful, stateful_pods) = match &workload.stateful {
            Err(_) => (None, Vec::new()),
            Ok(set_of) => {
                let path = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{}", set_of.name);
                let set = client.get(&path).await?;
                let pods = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", set_of.selector());
                (Some(set), list(pods).await?)
            }
        };
        Ok(Picture {
            stateful,
            stateful_pods,
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
        by_host(&self.pods)
    }

    /// How many replicas are asked for.
    pub(crate) fn wanted(&self) -> u64 {
        wanted(&self.deployment)
    }

    /// Every pod of the workload.
    pub(crate) fn all_pods(&self) -> impl Iterator<Item = &Value> {
        self.pods.iter().chain(&self.stateful_pods)
    }

    /// What is not as it should be with these hosts on; empty when the cluster is at rest. How the pods are spread is not asked,
    /// nor what the pods do that other hosts had.
    pub(crate) fn unready(&self, hosts: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        for host in hosts {
            match self.nodes.iter().find(|n| text(n, "/metadata/name") == host) {
                None => wrong.push(format!("the node {host} is missing")),
                Some(node) if !is_true(node, "Ready") => wrong.push(format!("the node {host} is not Ready")),
                Some(_) => {}
            }
        }
        let owners = [("Deployment", Some(&self.deployment)), ("StatefulSet", self.stateful.as_ref())];
        for (kind, owner) in owners.into_iter().filter_map(|(kind, owner)| Some((kind, owner?))) {
            let number = |pointer| owner.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            let (name, wanted) = (text(owner, "/metadata/name"), wanted(owner));
            let ready = number("/status/readyReplicas");
            if ready != wanted || number("/status/observedGeneration") < number("/metadata/generation") {
                wrong.push(format!("the {kind} {name} has {ready} of {wanted} replicas ready"));
            }
        }
        // Pods with the same complaint are named together.
        let mut complaints: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in self.all_pods() {
            let (name, host) = (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"));
            if !host.is_empty() && hosts.iter().all(|on| on != host) {
                // Nobody there can end it, or say how it is.
            } else if is_going(pod) {
                wrong.push(format!("the pod {name} on {host} is being deleted"));
            } else if is_finished(pod) {
                // Kept for its log; it serves nobody.
            } else if !is_true(pod, "Ready") {
                let place = if host.is_empty() { "not placed".into() } else { format!("on {host}") };
                complaints.entry(why(pod)).or_default().push(format!("{name} ({place})"));
            }
        }
        wrong.extend(complaints.into_iter().map(|(why, pods)| match pods.as_slice() {
            [one] => format!("the pod {one} is not Ready{why}"),
            several => format!("the pods {} are not Ready{why}", several.join(", ")),
        }));
        let endpoints: usize = self.slices.iter().map(|s| ready_endpoints(s).len()).sum();
        let wanted = self.wanted();
        if wrong.is_empty() && endpoints as u64 != wanted {
            wrong.push(format!("the Service has {endpoints} endpoints for {wanted} replicas"));
        }
        wrong
    }

    /// The hosts that take no pods because their disks are, or just were, full.
    pub(crate) fn full_disks(&self) -> Vec<String> {
        let full = self.nodes.iter().filter(|node| is_true(node, "DiskPressure"));
        full.map(|node| {
            format!(
                "the node {} takes no pods until its DiskPressure has passed",
                text(node, "/metadata/name")
            )
        })
        .collect()
    }

    /// What no time mends: pods that their host or the API refuses, and pods that no host has room for. Empty while
    /// there is hope.
    pub(crate) fn hopeless(&self) -> Vec<String> {
        let conditions = self.deployment.pointer("/status/conditions").and_then(Value::as_array);
        let refused = conditions.into_iter().flatten();
        let refused = refused.filter(|c| c["type"] == "ReplicaFailure" && c["status"] == "True");
        let name = text(&self.deployment, "/metadata/name");
        let refused = refused.map(|c| format!("the Deployment {name}: {}", text(c, "/message")));
        let mut pods: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for pod in self.all_pods().filter(|pod| !is_going(pod) && !is_finished(pod)) {
            if let Some(complaint) = verdict(pod) {
                pods.entry(complaint).or_default().push(text(pod, "/metadata/name"));
            }
        }
        let pods = pods.into_iter().map(|(complaint, pods)| match pods.as_slice() {
            [one] => format!("the pod {one}: {complaint}"),
            several => format!("the pods {}: {complaint}", several.join(", ")),
        });
        refused.chain(pods).collect()
    }

    /// A pod to delete so that it comes back on a host that has none: the newest of the fullest host. None when
    /// every host that could have a pod has one.
    pub(crate) fn misplaced(&self, hosts: &[String]) -> Option<&Value> {
        [&self.pods, &self.stateful_pods].into_iter().find_map(|pods| misplaced(&by_host(pods), hosts))
    }
}

fn misplaced<'a>(serving: &BTreeMap<String, Vec<&'a Value>>, hosts: &[String]) -> Option<&'a Value> {
    let empty = hosts.iter().any(|h| !serving.contains_key(h));
    let fullest = serving.values().filter(|pods| pods.len() > 1).max_by_key(|pods| pods.len())?;
    let created = |pod: &&&Value| text(pod, "/metadata/creationTimestamp").to_owned();
    fullest.iter().max_by_key(created).filter(|_| empty).copied()
}

/// The pods that serve, host by host.
fn by_host(pods: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut hosts: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for pod in pods.iter().filter(|p| is_true(p, "Ready") && !is_going(p)) {
        hosts.entry(text(pod, "/spec/nodeName").to_owned()).or_default().push(pod);
    }
    hosts
}

/// How many replicas a Deployment or a StatefulSet asks for.
fn wanted(owner: &Value) -> u64 {
    owner.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

fn is_going(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What the pod says about itself.
fn why(pod: &Value) -> String {
    let waiting = waiting(pod).find_map(|(_, state)| {
        let (reason, message) = (text(state, "/reason"), text(state, "/message"));
        let both = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
        Some(both).filter(|words| !words.is_empty())
    });
    let reason = waiting.or_else(|| unplaced(pod).map(str::to_owned));
    reason.map(|r| format!(": {r}")).unwrap_or_default()
}

/// The containers that wait, each with what it waits for.
fn waiting(pod: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let of = |field| pod.pointer(field).and_then(Value::as_array).into_iter().flatten();
    let all = of("/status/initContainerStatuses").chain(of("/status/containerStatuses"));
    all.filter_map(|status| Some((status, status.pointer("/state/waiting")?)))
}

/// Why the scheduler finds no host for the pod.
fn unplaced(pod: &Value) -> Option<&str> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut found = conditions.into_iter().flatten();
    let condition = found.find(|c| c["type"] == "PodScheduled" && c["status"] == "False")?;
    condition.get("message")?.as_str()
}

/// Reasons to wait that a kubelet gives for what only another manifest, or another object, mends.
const REFUSALS: [&str; 5] = [
    "RuntimeClassNotSupported",
    "CreateContainerConfigError",
    "CreateContainerError",
    "InvalidImageName",
    "ErrImageNeverPull",
];

/// Why the pod will not run, in the words of its host or of the scheduler, which are those of its Events.
fn verdict(pod: &Value) -> Option<String> {
    let refused = waiting(pod).find_map(|(status, state)| {
        let last = status.pointer("/lastState/terminated");
        let is_no_start =
            last.is_some_and(|last| matches!(text(last, "/reason"), "StartError" | "ContainerCannotRun"));
        match last {
            _ if REFUSALS.contains(&text(state, "/reason")) => Some(text(state, "/message")),
            Some(last) if is_no_start => Some(text(last, "/message")),
            _ => None,
        }
    });
    Some(refused.or_else(|| unplaced(pod))?.to_owned())
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
            ..Picture::default()
        }
    }

    #[test]
    fn a_stateful_set_is_to_be_at_rest_and_spread_too() {
        let hosts = ["n1".to_owned(), "n2".to_owned()];
        let mut picture = at_rest();
        picture.stateful = Some(
            json!({"metadata": {"name": "db"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}),
        );
        picture.stateful_pods = vec![pod("db-0", "n1", true), pod("db-1", "n1", false)];
        let unready = picture.unready(&hosts).join("; ");
        assert!(unready.contains("the StatefulSet db has 1 of 2 replicas ready"), "{unready}");
        assert!(unready.contains("the pod db-1 (on n1) is not Ready"), "{unready}");
        picture.stateful_pods[1] = pod("db-1", "n1", true);
        assert_eq!(picture.misplaced(&hosts).map(|pod| text(pod, "/metadata/name")), Some("db-1"));
        picture.stateful_pods[1] = pod("db-1", "n2", true);
        assert_eq!(picture.misplaced(&hosts), None);
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
    fn a_host_whose_disk_was_full_is_named() {
        let mut picture = at_rest();
        assert_eq!(picture.full_disks(), Vec::<String>::new());
        let conditions =
            json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
        picture.nodes[1]["status"] = json!({"conditions": conditions});
        assert_eq!(picture.full_disks(), ["the node n2 takes no pods until its DiskPressure has passed"]);
        assert!(picture.unready(&["n2".to_owned()]).iter().all(|why| !why.contains("n2")), "it is Ready");
    }

    #[test]
    fn pods_that_a_host_had_which_is_off_are_in_nobodys_way() {
        let mut picture = at_rest();
        picture.pods.push(pod("c", "n3", false));
        picture.pods.push(pod("d", "n3", false));
        picture.pods[3]["metadata"]["deletionTimestamp"] = json!("now");
        let mut hosts = vec!["n1".to_owned(), "n2".to_owned()];
        assert_eq!(picture.unready(&hosts), Vec::<String>::new());
        hosts.push("n3".into());
        assert_eq!(picture.unready(&hosts).len(), 3, "the node, and both pods");
    }

    #[test]
    fn says_what_is_hopeless_once() {
        let waits = |name: &str, reason: &str, last: Value| {
            let mut pod = pod(name, "n1", false);
            let state = json!({"waiting": {"reason": reason, "message": "set runtimeClassName: host"}});
            pod["status"]["containerStatuses"] = json!([{"state": state, "lastState": last}]);
            pod
        };
        let no_start = json!({"terminated": {"reason": "StartError", "message": "no such file"}});
        let crashed = json!({"terminated": {"reason": "Error"}});
        let mut picture = at_rest();
        assert_eq!(picture.hopeless(), Vec::<String>::new());
        picture.pods = ["a", "b"].map(|name| waits(name, "RuntimeClassNotSupported", json!({}))).into();
        assert_eq!(picture.hopeless(), ["the pods a, b: set runtimeClassName: host"]);
        let unready = picture.unready(&["n1".to_owned()]).join("; ");
        assert_eq!(unready.matches("set runtimeClassName: host").count(), 1, "{unready}");
        assert!(unready.contains("the pods a (on n1), b (on n1) are not Ready"), "{unready}");
        picture.pods = vec![waits("a", "CrashLoopBackOff", no_start)];
        assert_eq!(picture.hopeless(), ["the pod a: no such file"]);
        picture.pods =
            vec![waits("a", "CrashLoopBackOff", crashed), waits("b", "ContainerCreating", json!({}))];
        assert_eq!(picture.hopeless(), Vec::<String>::new(), "a pod that crashes may wait for another");
        picture.deployment["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "message": "no service account"}]);
        assert_eq!(picture.hopeless(), ["the Deployment web: no service account"]);
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
