//! What stands against a node by itself, in the words of kube-scheduler's plugins; what other nodes' pods have to do with
//! it is in [`crate::column`].

use k8s_openapi::api::core::v1::Taint;
use objects::{PodSpec, tolerates};

use crate::affinity::wants_node;
use crate::host_row::HostRow;
use crate::node::Node;
use crate::request::{self, amount};
use crate::rule::{Asks, Host, Rule};
use crate::score;
use crate::unschedulable::{Hope, Reason};
use crate::wish::Wish;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A node that is cordoned takes only pods that tolerate that.
#[derive(Debug)]
pub(crate) struct NodeUnschedulable;

impl Rule for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        let is_cordoned = host.node().spec.unschedulable == Some(true);
        let stands = is_cordoned && !all_tolerated(asks.0.spec(), &taint(UNSCHEDULABLE));
        one(stands, || Reason::of_node("node(s) were unschedulable"))
    }
}

/// A node's taints keep pods away that don't tolerate them.
#[derive(Debug)]
pub(crate) struct TaintToleration;

impl Rule for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        // Which one is the administrator's business: a pod's status is read by others (upstream since 1.34.2).
        let stands = repels(asks.0.spec(), host.row, host.node());
        one(stands, || Reason::of_node("node(s) had untolerated taint(s)"))
    }
}

/// A node has what the pod's node selector, its required node affinity and its runtime ask for.
#[derive(Debug)]
pub(crate) struct NodeAffinity;

impl Rule for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        let (wish, node) = (asks.0, host.node());
        let runtime = wish.runtime.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
        one(!runtime || !wants_node(wish.spec(), node), || {
            Reason::of_node("node(s) didn't match Pod's node affinity/selector")
        })
    }
}

/// Two pods don't take the same port of a host.
#[derive(Debug)]
pub(crate) struct NodePorts;

impl Rule for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        let promised = host.row.nominees_for(asks.priority()).flat_map(|nominee| &nominee.ports);
        one(request::collide(&asks.0.ports, host.row.ports.keys().chain(promised)), || {
            Reason::of_room("node(s) didn't have free ports for the requested pod ports")
        })
    }
}

/// There is room: every resource that is short is a reason. The more is left, the better.
#[derive(Debug)]
pub(crate) struct NodeResourcesFit;

impl Rule for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        short_of(asks.0, host.row)
    }

    fn score(&self, asks: &Asks<'_>, host: &Host<'_>) -> i64 {
        score::left(asks.0, host.row)
    }
}

/// No more volumes of a CSI driver than can be attached.
#[derive(Debug)]
pub(crate) struct NodeVolumeLimits;

impl Rule for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        let brought = &asks.0.need.attach;
        let promised = host.row.nominees_for(asks.priority()).flat_map(|nominee| &nominee.attached);
        one(host.row.attachments.are_exceeded_by(brought, promised), || {
            Reason::new("node(s) exceed max volume count", Hope::NODES | Hope::ROOM | Hope::VOLUMES)
        })
    }
}

/// A pod's volumes are there, or can be.
#[derive(Debug)]
pub(crate) struct VolumeBinding;

impl Rule for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        asks.0.need.against(host.node()).into_iter().collect()
    }
}

/// A pod's claims have their devices where they can be used, or get them.
#[derive(Debug)]
pub(crate) struct DynamicResources;

impl Rule for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        asks.0.need.devices.against(host.node()).into_iter().collect()
    }
}

/// A pod's volumes can be used in the node's zone.
#[derive(Debug)]
pub(crate) struct VolumeZone;

impl Rule for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        one(!asks.0.need.zones.are_on(host.node()), || {
            Reason::new("node(s) had no available volume zone", Hope::NODES | Hope::VOLUMES)
        })
    }
}

fn one(stands: bool, reason: impl FnOnce() -> Reason) -> Vec<Reason> {
    if stands { vec![reason()] } else { Vec::new() }
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
            // What is larger than the node won't fit there, whichever pods go.
            let hope = if *asked > all { Hope::NODES } else { Hope::NODES | Hope::ROOM };
            short.push(Reason { text: format!("Insufficient {name}"), hope });
        }
    }
    short
}

fn all_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

/// Whether a taint of a node keeps the pod away. A node that is not ready, or that was not heard from lately, counts as having the
/// taint that it will get.
pub(crate) fn repels(spec: &PodSpec, host: &HostRow, node: &Node) -> bool {
    let coming = match node.status.conditions.as_ref().map(|ready| ready.status.as_str()) {
        _ if host.silent => Some(UNREACHABLE),
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let hard = |taint: &&Taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
    let mut own = node.spec.taints.iter().flatten().filter(hard);
    own.any(|taint| !all_tolerated(spec, taint))
        || coming.is_some_and(|coming| !all_tolerated(spec, &taint(coming)))
}

/// Whether a host takes pods that ask for nothing special.
pub(crate) fn takes_pods(host: &HostRow) -> bool {
    host.open()
        .is_some_and(|node| node.spec.unschedulable != Some(true) && !repels(&PodSpec::default(), host, node))
}

/// How many taints of a node would rather not have the pod.
pub(crate) fn discouraged(spec: &PodSpec, node: &Node) -> usize {
    let soft = node.spec.taints.iter().flatten().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !all_tolerated(spec, taint)).count()
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}
