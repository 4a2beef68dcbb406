//! Where a pod can be: every reason against a node, in the words of kube-scheduler's plugins.

use k8s_openapi::api::core::v1::Taint;
use objects::{Pod, PodSpec, tolerates};

use super::affinity::{Neighbours, wants_node};
use super::cluster::{Cluster, Host};
use super::request::{self, Amounts, HostPort};
use super::spread::{Broken, Constraint};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a pod asks for, worked out once for all nodes.
pub struct Wish<'a> {
    spec: &'a PodSpec,
    runtime: Option<&'a super::cluster::Labels>,
    amounts: Amounts,
    ports: std::collections::BTreeSet<HostPort>,
    pub neighbours: Neighbours,
    pub spreading: Vec<Constraint>,
}

impl<'a> Wish<'a> {
    pub fn new(pod: &'a Pod, spec: &'a PodSpec, cluster: &'a Cluster) -> Self {
        let class = spec.runtime_class_name.as_ref();
        Wish {
            spec,
            runtime: class.and_then(|class| cluster.runtime_classes.get(class)),
            amounts: request::of(spec),
            ports: request::host_ports(spec),
            neighbours: Neighbours::of(pod, cluster),
            spreading: Constraint::all(pod, spec, cluster),
        }
    }

    /// The reasons against a node, none if the pod can be there. As upstream, only the first kind of
    /// reason is told, and every resource that is short.
    pub fn against(&self, host: &Host) -> Vec<String> {
        let text = |text: &str| vec![text.to_owned()];
        let cordoned = host.node.spec.unschedulable == Some(true);
        if cordoned && !self.tolerates(&taint(UNSCHEDULABLE)) {
            return text("node(s) were unschedulable");
        }
        if let Some(taint) = untolerated(self.spec, host) {
            let value = taint.value.unwrap_or_default();
            return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
        }
        let runtime = self.runtime.into_iter().flatten().all(|(key, value)| host.label(key) == Some(value));
        if !runtime || !wants_node(self.spec, host) {
            return text("node(s) didn't match Pod's node affinity/selector");
        }
        if request::collide(&self.ports, &host.ports) {
            return text("node(s) didn't have free ports for the requested pod ports");
        }
        let short = self.short_of(host);
        if !short.is_empty() {
            return short;
        }
        match self.spreading.iter().find_map(|constraint| constraint.broken_by(host)) {
            Some(Broken::Label) => {
                return text("node(s) didn't match pod topology spread constraints (missing required label)");
            }
            Some(Broken::Skew) => return text("node(s) didn't match pod topology spread constraints"),
            None => {}
        }
        if !self.neighbours.meets_affinity(host) {
            return text("node(s) didn't match pod affinity rules");
        }
        if !self.neighbours.meets_anti_affinity(host) {
            return text("node(s) didn't match pod anti-affinity rules");
        }
        if !self.neighbours.is_welcome(host) {
            return text("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Vec::new()
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
    }

    fn short_of(&self, host: &Host) -> Vec<String> {
        let amount = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(0);
        let mut short = Vec::new();
        if let Some(most) = host.allocatable.get("pods")
            && (host.pods.len() as i128 + 1) * 1000 > *most
        {
            short.push("Too many pods".to_owned());
        }
        for (name, asked) in self.amounts.iter().filter(|(_, asked)| **asked > 0) {
            if amount(&host.requested, name).saturating_add(*asked) > amount(&host.allocatable, name) {
                short.push(format!("Insufficient {name}"));
            }
        }
        short
    }

    /// How much of the node's processors and memory would be taken, in thousandths of each, together.
    pub fn usage(&self, host: &Host) -> i128 {
        let amount = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(0);
        let share = |name: &str| {
            let all = amount(&host.allocatable, name).max(1);
            (amount(&host.requested, name) + amount(&self.amounts, name)).saturating_mul(1000) / all
        };
        share("cpu") + share("memory")
    }
}

/// The first taint of a node that keeps the pod away. A node that is not ready, or that was not heard from
/// lately, counts as having the taint that it will get.
pub fn untolerated(spec: &PodSpec, host: &Host) -> Option<Taint> {
    let own = host.node.spec.taints.iter().flatten().cloned();
    let ready = host.node.status.conditions.as_ref().map(|condition| condition.status.as_str());
    let coming = match ready {
        _ if host.silent => Some(taint(UNREACHABLE)),
        Some("True") => None,
        Some("Unknown") => Some(taint(UNREACHABLE)),
        _ => Some(taint(NOT_READY)),
    };
    let tolerated =
        |taint: &Taint| spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint));
    let mut hard =
        own.chain(coming).filter(|taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()));
    hard.find(|taint| !tolerated(taint))
}

/// How many taints of a node would rather not have the pod.
pub fn discouraged(spec: &PodSpec, host: &Host) -> usize {
    let taints = host.node.spec.taints.iter().flatten();
    let soft = taints.filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !spec.tolerations.iter().flatten().any(|t| tolerates(t, taint))).count()
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}
