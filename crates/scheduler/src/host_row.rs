//! A row of the cluster: a host, its node, and what the pods on it add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::PodSpec;

use crate::class::Class;
use crate::node::Node;
use crate::request::{self, Amounts, HostPort};

/// A host with what is on it. Pods may be placed on a node that isn't there (yet, or any more): they count once it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostRow {
    pub name: Arc<str>,
    pub node: Option<Arc<Node>>,
    /// Whether it was not heard from lately.
    pub silent: bool,
    /// How many pods there are, those on their way out among them.
    pub pods: usize,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub ports: BTreeMap<HostPort, usize>,
    /// The pods that are not on their way out, by class. A handful: they are looked through one by one.
    pub classes: Vec<(Arc<Class>, u32)>,
}

impl HostRow {
    pub fn new(name: &str) -> Self {
        HostRow { name: name.into(), ..HostRow::default() }
    }

    /// The node, if pods may be put on it at all.
    pub fn open(&self) -> Option<&Node> {
        self.node.as_deref().filter(|node| node.metadata.deletion_timestamp.is_none())
    }

    pub fn is_empty(&self) -> bool {
        self.node.is_none() && self.pods == 0
    }

    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().map(|node| &node.status);
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = request::amounts(allocatable);
        self.node = node;
    }

    /// Puts a pod on the host. One on its way out takes room, but no rule of another pod means it any more.
    pub fn add(&mut self, spec: Option<&PodSpec>, class: &Arc<Class>, leaving: bool) {
        self.pods += 1;
        if let Some(spec) = spec {
            request::add(&mut self.requested, &request::of(spec));
            for port in request::host_ports(spec) {
                *self.ports.entry(port).or_default() += 1;
            }
        }
        if leaving {
            return;
        }
        match self.classes.iter_mut().find(|(other, _)| Arc::ptr_eq(other, class)) {
            Some((_, count)) => *count += 1,
            None => self.classes.push((class.clone(), 1)),
        }
    }

    /// Takes away a pod that was put on the host with the same arguments.
    pub fn remove(&mut self, spec: Option<&PodSpec>, class: &Arc<Class>, leaving: bool) {
        self.pods = self.pods.saturating_sub(1);
        if let Some(spec) = spec {
            request::subtract(&mut self.requested, &request::of(spec));
            for port in request::host_ports(spec) {
                if let Some(count) = self.ports.get_mut(&port) {
                    *count -= 1;
                    if *count == 0 {
                        self.ports.remove(&port);
                    }
                }
            }
        }
        if leaving {
            return;
        }
        if let Some(at) = self.classes.iter().position(|(other, _)| Arc::ptr_eq(other, class)) {
            self.classes[at].1 -= 1;
            if self.classes[at].1 == 0 {
                self.classes.swap_remove(at);
            }
        }
    }
}
