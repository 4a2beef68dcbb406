//! What a change of an object means for the timeline.

use serde_json::Value;
use std::collections::BTreeMap;

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Nodes.
    Nodes,
    /// The workload's Pods.
    Pods,
    /// The Pods of the workload's StatefulSet.
    StatefulPods,
    /// The Service's EndpointSlices.
    Slices,
}

/// One object changed: was created where there is no old one, is gone where there is no new one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) kind: Watched,
    pub(crate) old: Option<Value>,
    pub(crate) new: Option<Value>,
}

/// Something to put on the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) what: &'static str,
    pub(crate) host: Option<String>,
    pub(crate) subject: String,
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The condition of a Node or Pod is True.
pub(crate) fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

/// Whether the cluster counts on it that nothing runs on a Node that must not run twice: since a host's lease is over (docs/leases.md), or since somebody
/// said that the host is off (KEP-2268).
fn is_fenced(node: &Value) -> bool {
    let annotation =
        |key: &str| text(node, &format!("/metadata/annotations/holdfast.dev~1{key}")).parse::<u64>().ok();
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    let is_out =
        taints.into_iter().flatten().any(|taint| taint["key"] == "node.kubernetes.io/out-of-service");
    is_out
        || annotation("fenced-epoch")
            .is_some_and(|fenced| annotation("lease-epoch").is_none_or(|now| fenced >= now))
}

fn runs(pod: &Value) -> bool {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses.is_some_and(|all| !all.is_empty() && all.iter().all(|s| s.pointer("/state/running").is_some()))
}

/// The ready endpoints of a slice, by address, with their hosts.
pub(crate) fn ready_endpoints(slice: &Value) -> BTreeMap<String, String> {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let ready =
        endpoints.into_iter().flatten().filter(|e| e.pointer("/conditions/ready") != Some(&false.into()));
    ready.map(|e| (text(e, "/addresses/0").to_owned(), text(e, "/nodeName").to_owned())).collect()
}

/// What the change means.
pub(crate) fn sights(change: &Change) -> Vec<Sight> {
    let mut seen = Vec::new();
    let nothing = Value::Null;
    let old = change.old.as_ref().unwrap_or(&nothing);
    let new = change.new.as_ref().unwrap_or(&nothing);
    let some = if new.is_null() { old } else { new };
    let name = text(some, "/metadata/name");
    let namespace = text(some, "/metadata/namespace");
    match change.kind {
        Watched::Nodes => {
            let (was, is) = (is_true(old, "Ready"), is_true(new, "Ready"));
            if was != is {
                let what = if is { "node-ready" } else { "node-not-ready" };
                seen.push(Sight { what, host: None, subject: name.to_owned() });
            }
            let (was, is) = (is_fenced(old), is_fenced(new));
            if was != is && change.old.is_some() {
                let what = if is { "node-fenced" } else { "node-unfenced" };
                seen.push(Sight { what, host: None, subject: name.to_owned() });
            }
        }
        Watched::Pods | Watched::StatefulPods => {
            let host = Some(text(some, "/spec/nodeName")).filter(|h| !h.is_empty()).map(str::to_owned);
            let mut see = |what| {
                seen.push(Sight { what, host: host.clone(), subject: format!("{namespace}/{name}") });
            };
            if change.old.is_none() {
                see("pod-created");
            }
            if text(old, "/spec/nodeName").is_empty() && !text(new, "/spec/nodeName").is_empty() {
                see("pod-placed");
            }
            if !runs(old) && runs(new) {
                see("pod-started");
            }
            if !is_true(old, "Ready") && is_true(new, "Ready") {
                see("pod-ready");
            }
            if change.new.is_none() {
                see("pod-deleted");
            }
        }
        Watched::Slices => {
            let (was, is) = (ready_endpoints(old), ready_endpoints(new));
            let service = some.pointer("/metadata/labels/kubernetes.io~1service-name");
            let subject = format!("{namespace}/{}", service.and_then(Value::as_str).unwrap_or(name));
            for (address, host) in &is {
                if !was.contains_key(address) {
                    let host = Some(host.clone()).filter(|h| !h.is_empty());
                    seen.push(Sight { what: "endpoint-added", host, subject: subject.clone() });
                }
            }
            for (address, host) in &was {
                if !is.contains_key(address) {
                    let host = Some(host.clone()).filter(|h| !h.is_empty());
                    seen.push(Sight { what: "endpoint-removed", host, subject: subject.clone() });
                }
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whats(kind: Watched, old: Value, new: Value) -> Vec<(&'static str, String)> {
        let there = |v: Value| Some(v).filter(|v| !v.is_null());
        let change = Change { kind, old: there(old), new: there(new) };
        sights(&change).into_iter().map(|s| (s.what, s.host.unwrap_or_default())).collect()
    }

    fn seen(all: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        all.iter().map(|(what, host)| (*what, (*host).to_owned())).collect()
    }

    #[test]
    fn the_life_of_a_pod() {
        let pod = |node: &str, running: bool, ready: &str| {
            let state = if running { json!({"running": {}}) } else { json!({"waiting": {}}) };
            json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeName": node},
                "status": {"containerStatuses": [{"state": state}], "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let bare = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {}});
        for (old, new, expected) in [
            (Value::Null, bare.clone(), seen(&[("pod-created", "")])),
            (bare, pod("n2", false, "False"), seen(&[("pod-placed", "n2")])),
            (pod("n2", false, "False"), pod("n2", true, "False"), seen(&[("pod-started", "n2")])),
            (pod("n2", true, "False"), pod("n2", true, "True"), seen(&[("pod-ready", "n2")])),
            (pod("n2", true, "True"), pod("n2", true, "True"), seen(&[])),
            (pod("n2", true, "True"), Value::Null, seen(&[("pod-deleted", "n2")])),
            (
                Value::Null,
                pod("n2", true, "True"),
                seen(&[
                    ("pod-created", "n2"),
                    ("pod-placed", "n2"),
                    ("pod-started", "n2"),
                    ("pod-ready", "n2"),
                ]),
            ),
        ] {
            assert_eq!(whats(Watched::Pods, old.clone(), new.clone()), expected, "{old} -> {new}");
        }
    }

    #[test]
    fn a_node_is_fenced_by_its_lease_or_by_hand() {
        let node = |annotations: Value, taints: Value| json!({"metadata": {"name": "n1", "annotations": annotations}, "spec": {"taints": taints}});
        let free = || node(json!({"holdfast.dev/lease-epoch": "4"}), json!([{"key": "x"}]));
        let marked = |fenced: &str, epoch: &str| {
            node(json!({"holdfast.dev/lease-epoch": epoch, "holdfast.dev/fenced-epoch": fenced}), Value::Null)
        };
        let out =
            node(Value::Null, json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]));
        for (old, new, expected) in [
            (free(), marked("4", "4"), seen(&[("node-fenced", "")])),
            (marked("4", "4"), marked("4", "5"), seen(&[("node-unfenced", "")])),
            (free(), marked("3", "4"), seen(&[])),
            (free(), out, seen(&[("node-fenced", "")])),
            (free(), free(), seen(&[])),
            (Value::Null, marked("4", "4"), seen(&[])),
        ] {
            assert_eq!(whats(Watched::Nodes, old.clone(), new.clone()), expected, "{old} -> {new}");
        }
    }

    #[test]
    fn nodes_and_endpoints() {
        let node = |ready: &str| json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        assert_eq!(whats(Watched::Nodes, node("True"), node("Unknown")), seen(&[("node-not-ready", "")]));
        assert_eq!(whats(Watched::Nodes, node("Unknown"), node("True")), seen(&[("node-ready", "")]));
        assert_eq!(whats(Watched::Nodes, node("False"), node("Unknown")), []);
        let slice = |endpoints: Value| json!({"metadata": {"name": "web-1", "namespace": "x"}, "endpoints": endpoints});
        let on = |address: &str, node: &str, ready: bool| json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}});
        let old = slice(json!([on("a", "n1", true), on("b", "n2", false)]));
        let new = slice(json!([on("a", "n1", false), on("b", "n2", true)]));
        assert_eq!(
            whats(Watched::Slices, old, new),
            seen(&[("endpoint-added", "n2"), ("endpoint-removed", "n1")])
        );
        assert_eq!(whats(Watched::Slices, Value::Null, json!({"endpoints": null})), []);
    }
}
