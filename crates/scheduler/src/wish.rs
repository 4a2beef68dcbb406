//! What a pod asks for, worked out once for all pods that ask for the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use objects::{Labels, Pod, PodSpec};

use crate::affinity::{self, Term};
use crate::class::Class;
use crate::cluster::Namespaces;
use crate::filter;
use crate::host_row::HostRow;
use crate::image::Image;
use crate::node::Node;
use crate::profile::Profile;
use crate::request::{self, Amounts, HostPort, Weight};
use crate::spread::Constraint;
use crate::storage::Need;

/// What a pod asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// One of the pods that ask for it.
    pub pod: Arc<Pod>,
    pub class: Arc<Class>,
    pub priority: i32,
    /// Labels that the pod's runtime wants of a node.
    pub runtime: Option<Labels>,
    pub amounts: Amounts,
    pub weight: Weight,
    /// The images of its containers.
    pub images: Vec<Image>,
    pub ports: BTreeSet<HostPort>,
    /// The required affinities; whether each means the pod itself, which then may be the first of its kind.
    pub near: Vec<(Term, bool)>,
    pub preferred: Vec<(Term, i64)>,
    pub spreading: Vec<Constraint>,
    /// What its claims ask for.
    pub need: Need,
    /// By what it is placed.
    pub profile: Arc<Profile>,
}

impl Wish {
    pub fn of(
        pod: &Arc<Pod>,
        class: Arc<Class>,
        runtime: Option<Labels>,
        need: Need,
        profile: Arc<Profile>,
        namespaces: &Namespaces,
    ) -> Self {
        let spec = spec(pod);
        let near = if profile.company.filters { affinity::near(pod) } else { Vec::new() };
        let near = near.into_iter().map(|term| {
            let itself = term.means(&class, namespaces);
            (term, itself)
        });
        Wish {
            priority: priority(pod),
            near: near.collect(),
            runtime,
            amounts: request::of(spec),
            weight: request::weight(spec),
            images: spec.containers.iter().filter_map(|c| c.image.as_deref()).map(Image::named).collect(),
            ports: request::host_ports(spec),
            preferred: if profile.company.scores { affinity::preferred(pod) } else { Vec::new() },
            spreading: Constraint::all(pod, spec, &profile),
            need,
            profile,
            pod: pod.clone(),
            class,
        }
    }

    /// Whether a node's pods count for one of the pod's constraints. As upstream, a node must have the labels of all constraints
    /// of the same kind.
    pub fn counts(&self, constraint: &Constraint, host: &HostRow, node: &Node) -> bool {
        let mut alike = self.spreading.iter().filter(|other| other.required == constraint.required);
        alike.all(|other| node.label(&other.key).is_some()) && constraint.counts(self.spec(), host, node)
    }

    /// How many taints of a node would rather not have the pod.
    pub fn discouraged(&self, node: &Node) -> usize {
        if self.profile.sees_discouraging_taints { filter::discouraged(self.spec(), node) } else { 0 }
    }

    /// The weight of the preferred node affinities that a node meets.
    pub fn preferred_node(&self, node: &Node) -> i64 {
        if self.profile.sees_preferred_nodes { affinity::preferred_node(&self.pod, node) } else { 0 }
    }

    /// The required anti-affinities.
    pub fn apart(&self) -> &[Term] {
        if self.profile.company.filters { &self.class.apart } else { &[] }
    }

    pub fn spec(&self) -> &PodSpec {
        spec(&self.pod)
    }

    /// Whether another pod of a class, whose claims need something, asks for the same.
    pub fn is_of(&self, pod: &Pod, class: &Arc<Class>, need: &Need, profile: &Arc<Profile>) -> bool {
        Arc::ptr_eq(&self.class, class)
            && Arc::ptr_eq(&self.profile, profile)
            && self.need == *need
            && asks_the_same(self.spec(), spec(pod))
    }
}

/// Whether two specs ask for the same of a node, with the same right to it; where each is placed, and by whom, makes no
/// difference.
pub(crate) fn asks_the_same(one: &PodSpec, other: &PodSpec) -> bool {
    // Replicas share what they ask for.
    std::ptr::eq(one, other)
        || one.priority == other.priority
            && one.preemption_policy == other.preemption_policy
            && one.affinity == other.affinity
            && one.node_selector == other.node_selector
            && one.tolerations == other.tolerations
            && one.topology_spread_constraints == other.topology_spread_constraints
            && one.runtime_class_name == other.runtime_class_name
            && one.overhead == other.overhead
            && one.resources == other.resources
            && one.containers == other.containers
            && one.init_containers == other.init_containers
            && one.resource_claims == other.resource_claims
}

/// A pod's priority; without one it has that of a pod before priorities were.
pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_deref().unwrap_or(&NONE)
}
