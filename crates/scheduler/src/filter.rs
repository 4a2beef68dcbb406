//! What stands against a node by itself, in the words of kube-scheduler's plugins; what other nodes' pods have to do with
//! it is in [`crate::column`].

use k8s_openapi::api::core::v1::Taint;
use objects::{PodSpec, tolerates};

use crate::affinity::wants_node;
use crate::host_row::HostRow;
use crate::node::Node;
use crate::request::{self, amount};
use crate::unschedulable::{Hope, Reason};
use crate::wish::Wish;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The reasons against a node, none if the pod can be there as far as the node goes. As upstream, only the first kind of
/// reason is given, and every resource that is short.
pub(crate) fn against(wish: &Wish, host: &HostRow, node: &Node) -> Vec<Reason> {
    let spec = wish.spec();
    let one = |text: &str| vec![Reason { text: text.to_owned(), hope: Hope::NODES }];
    if node.spec.unschedulable == Some(true) && !all_tolerated(spec, &taint(UNSCHEDULABLE)) {
        return one("node(s) were unschedulable");
    }
    if let Some(taint) = untolerated(spec, host, node) {
        let value = taint.value.unwrap_or_default();
        return one(&format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    let runtime = wish.runtime.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    if !runtime || !wants_node(spec, node) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    let promised = host.nominees_for(wish.priority).flat_map(|nominee| &nominee.ports);
    if request::collide(&wish.ports, host.ports.keys().chain(promised)) {
        let text = "node(s) didn't have free ports for the requested pod ports".to_owned();
        return vec![Reason { text, hope: Hope::NODES | Hope::ROOM }];
    }
    let short = short_of(wish, host);
    if !short.is_empty() {
        return short;
    }
    let promised = host.nominees_for(wish.priority).flat_map(|nominee| &nominee.attached);
    if host.attachments.are_exceeded_by(wish.need.attach(), promised) {
        return vec![Reason::new(
            "node(s) exceed max volume count",
            Hope::NODES | Hope::ROOM | Hope::VOLUMES,
        )];
    }
    wish.need.against(node).into_iter().collect()
}

fn short_of(wish: &Wish, host: &HostRow) -> Vec<Reason> {
    let mut short = Vec::new();
    let promised = || host.nominees_for(wish.priority);
    let pods = host.pods.len() + promised().count();
    if let Some(most) = host.allocatable.get("pods")
        && (pods as i128 + 1) * 1000 > *most
    {
        short.push(Reason::new("Too many pods", Hope::NODES | Hope::ROOM));
    }
    for (name, asked) in wish.amounts.iter().filter(|(_, asked)| **asked > 0) {
        let all = amount(&host.allocatable, name);
        let taken = promised().map(|nominee| amount(&nominee.amounts, name));
        let taken = taken.fold(amount(&host.requested, name), i128::saturating_add);
        if taken.saturating_add(*asked) > all {
            // What is larger than the node won't fit there, whoever goes.
            let hope = if *asked > all { Hope::NODES } else { Hope::NODES | Hope::ROOM };
            short.push(Reason { text: format!("Insufficient {name}"), hope });
        }
    }
    short
}

fn all_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

/// The first taint of a node that keeps the pod away. A node that is not ready, or that was not heard from
/// lately, counts as having the taint that it will get.
pub(crate) fn untolerated(spec: &PodSpec, host: &HostRow, node: &Node) -> Option<Taint> {
    let coming = match node.status.conditions.as_ref().map(|ready| ready.status.as_str()) {
        _ if host.silent => Some(UNREACHABLE),
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let hard = |taint: &&Taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
    let own = node.spec.taints.iter().flatten().filter(hard);
    if let Some(taint) = own.into_iter().find(|taint| !all_tolerated(spec, taint)) {
        return Some(taint.clone());
    }
    coming.map(taint).filter(|taint| !all_tolerated(spec, taint))
}

/// Whether a host takes pods that ask for nothing special.
pub(crate) fn takes_pods(host: &HostRow) -> bool {
    host.open().is_some_and(|node| {
        node.spec.unschedulable != Some(true) && untolerated(&PodSpec::default(), host, node).is_none()
    })
}

/// How many taints of a node would rather not have the pod.
pub(crate) fn discouraged(spec: &PodSpec, node: &Node) -> usize {
    let soft = node.spec.taints.iter().flatten().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !all_tolerated(spec, taint)).count()
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}
