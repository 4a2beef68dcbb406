//! A row of the cluster: a host, its node, and what the pods on it add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use objects::Pod;

use crate::attachments::{Attached, Attachments};
use crate::class::Class;
use crate::cluster::is_leaving;
use crate::node::Node;
use crate::request::{self, Amounts, HostPort, Weight};
use crate::wish::{priority, spec};

/// A host with what is on it. Pods may be placed on a node that isn't there (yet, or any more): they count once it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostRow {
    pub name: Arc<str>,
    pub node: Option<Arc<Node>>,
    /// Whether it was not heard from lately.
    pub silent: bool,
    /// The pods, those on their way out among them.
    pub pods: Vec<Arc<Pod>>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    /// What its pods weigh together.
    pub weight: Weight,
    pub ports: BTreeMap<HostPort, usize>,
    /// The volumes of CSI drivers.
    pub attachments: Attachments,
    /// The pods that are not on their way out, by class. A handful: they are looked through one by one.
    pub classes: Vec<(Arc<Class>, u32)>,
    /// Pods that room is being made for here: a handful at most.
    pub nominees: Vec<Nominee>,
}

/// A pod that has no place yet and will most likely get one here. For pods of no higher priority it counts as if it had
/// it: they would take what others were preempted for.
#[derive(Debug, Clone)]
pub(crate) struct Nominee {
    pub key: Bytes,
    pub pod: Arc<Pod>,
    pub class: Arc<Class>,
    pub priority: i32,
    pub amounts: Amounts,
    pub ports: BTreeSet<HostPort>,
    pub attached: Vec<Attached>,
}

impl Nominee {
    pub fn new(key: Bytes, pod: Arc<Pod>, class: Arc<Class>, attached: Vec<Attached>) -> Self {
        let spec = spec(&pod);
        let (amounts, ports) = (request::of(spec), request::host_ports(spec));
        Nominee { key, class, priority: priority(&pod), amounts, ports, attached, pod }
    }
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
        let is_bare = self.pods.is_empty() && self.nominees.is_empty();
        self.node.is_none() && is_bare && self.attachments.is_empty()
    }

    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().map(|node| &node.status);
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.allocatable = request::amounts(allocatable);
        self.node = node;
    }

    /// The nominees that count for a pod of a priority.
    pub fn nominees_for(&self, priority: i32) -> impl Iterator<Item = &Nominee> + Clone {
        self.nominees.iter().filter(move |nominee| nominee.priority >= priority)
    }

    /// Puts a pod on the host, with its volumes of CSI drivers. One on its way out takes room, but no rule of another pod means it any
    /// more.
    pub fn add(&mut self, pod: &Arc<Pod>, class: &Arc<Class>, attached: &[Attached]) {
        self.pods.push(pod.clone());
        self.attachments.add(attached);
        if let Some(spec) = pod.taken() {
            request::add(&mut self.requested, &request::of(spec));
            for (sum, more) in self.weight.iter_mut().zip(request::weight(spec)) {
                *sum = sum.saturating_add(more);
            }
            for port in request::host_ports(spec) {
                *self.ports.entry(port).or_default() += 1;
            }
        }
        if is_leaving(pod) {
            return;
        }
        match self.classes.iter_mut().find(|(other, _)| Arc::ptr_eq(other, class)) {
            Some((_, count)) => *count += 1,
            None => self.classes.push((class.clone(), 1)),
        }
    }

    /// Takes in what has become of a pod that counts as it did before.
    pub fn replace(&mut self, old: &Arc<Pod>, new: &Arc<Pod>) {
        if let Some(pod) = self.pods.iter_mut().find(|pod| Arc::ptr_eq(pod, old)) {
            *pod = new.clone();
        }
    }

    /// Takes away a pod that was put on the host, of the same class and with the same volumes as then.
    pub fn remove(&mut self, pod: &Arc<Pod>, class: &Arc<Class>, attached: &[Attached]) {
        self.attachments.remove(attached);
        if let Some(at) = self.pods.iter().position(|other| Arc::ptr_eq(other, pod)) {
            self.pods.swap_remove(at);
        }
        if let Some(spec) = pod.taken() {
            request::subtract(&mut self.requested, &request::of(spec));
            for (sum, less) in self.weight.iter_mut().zip(request::weight(spec)) {
                *sum = sum.saturating_sub(less);
            }
            for port in request::host_ports(spec) {
                if let Some(count) = self.ports.get_mut(&port) {
                    *count -= 1;
                    if *count == 0 {
                        self.ports.remove(&port);
                    }
                }
            }
        }
        if is_leaving(pod) {
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
