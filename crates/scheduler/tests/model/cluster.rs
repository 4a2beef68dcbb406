//! The nodes with the pods on them, as lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::Pod;
use scheduler::Node;

use super::request::{self, Amounts, HostPort};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A node with what is on it.
#[derive(Debug, Clone)]
pub struct Host {
    /// The node.
    pub node: Arc<Node>,
    /// Whether it was not heard from lately.
    pub silent: bool,
    /// The pods on it that have not ended.
    pub pods: Vec<Arc<Pod>>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub ports: BTreeSet<HostPort>,
}

/// All nodes with their pods, and what else a placement depends on.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// The nodes by name.
    pub hosts: BTreeMap<String, Host>,
    /// The labels of every namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// The node selector of every RuntimeClass that has one.
    pub runtime_classes: BTreeMap<String, Labels>,
}

impl Host {
    /// A node without pods.
    pub fn new(node: Arc<Node>, silent: bool) -> Self {
        let status = &node.status;
        let allocatable = request::amounts(status.allocatable.as_ref().or(status.capacity.as_ref()));
        Host {
            node,
            silent,
            pods: Vec::new(),
            allocatable,
            requested: Amounts::new(),
            ports: BTreeSet::new(),
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// The value of one of the node's labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Puts a pod on the node.
    pub fn place(&mut self, pod: Arc<Pod>) {
        if let Some(spec) = &pod.spec {
            request::add(&mut self.requested, &request::of(spec));
            self.ports.extend(request::host_ports(spec));
        }
        self.pods.push(pod);
    }
}

impl Cluster {
    /// Puts a pod on a node, if there is such a node and the pod has not ended.
    pub fn place(&mut self, pod: &Arc<Pod>, node: &str) {
        if !is_finished(pod)
            && let Some(host) = self.hosts.get_mut(node)
        {
            host.place(pod.clone());
        }
    }
}

/// Whether a pod has ended and needs nothing any more.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod is on its way out.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
