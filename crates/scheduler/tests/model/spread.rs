//! Spreading: the pod's own constraints (KEP-895), and what is done without any.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use objects::{Pod, PodSpec, selects};

use super::affinity::{wants_node, with_keys};
use super::cluster::{Cluster, Host, is_leaving, namespace};
use super::filter::untolerated;

/// One constraint with the count of matching pods in each of its domains.
pub struct Constraint {
    key: String,
    required: bool,
    max_skew: i64,
    counts: BTreeMap<String, i64>,
    least: i64,
    matches_itself: i64,
}

/// Why a node breaks a constraint.
pub enum Broken {
    /// It has no such label.
    Label,
    /// Its domain would have too many.
    Skew,
}

impl Constraint {
    pub fn all(pod: &Pod, spec: &PodSpec, cluster: &Cluster) -> Vec<Constraint> {
        let constraints = spec.topology_spread_constraints.iter().flatten();
        constraints.map(|constraint| Constraint::new(pod, spec, constraint, cluster)).collect()
    }

    fn new(pod: &Pod, spec: &PodSpec, constraint: &TopologySpreadConstraint, cluster: &Cluster) -> Self {
        let labels = pod.metadata.labels.as_ref();
        let keys = constraint.match_label_keys.as_ref();
        let selector =
            constraint.label_selector.as_ref().map(|selector| with_keys(selector, keys, "In", labels));
        let matches = |other: &Pod| {
            namespace(other) == namespace(pod)
                && selector.as_ref().is_some_and(|s| selects(s, other.metadata.labels.as_ref()))
        };
        let mut counts = BTreeMap::new();
        for host in cluster.hosts.values().filter(|host| counts_for(spec, constraint, host)) {
            if let Some(domain) = host.label(&constraint.topology_key) {
                let here = host.pods.iter().filter(|other| !is_leaving(other) && matches(other)).count();
                *counts.entry(domain.to_owned()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
            }
        }
        let few =
            i64::try_from(counts.len()).unwrap_or(i64::MAX) < i64::from(constraint.min_domains.unwrap_or(1));
        Constraint {
            key: constraint.topology_key.clone(),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            max_skew: i64::from(constraint.max_skew),
            least: if few { 0 } else { counts.values().copied().min().unwrap_or(0) },
            counts,
            matches_itself: i64::from(matches(pod)),
        }
    }

    /// How a node breaks the constraint, if it must be kept and the node does.
    pub fn broken_by(&self, host: &Host) -> Option<Broken> {
        if !self.required {
            return None;
        }
        let Some(domain) = host.label(&self.key) else { return Some(Broken::Label) };
        let here = self.counts.get(domain).copied().unwrap_or(0);
        (here + self.matches_itself - self.least > self.max_skew).then_some(Broken::Skew)
    }

    /// How many matching pods the node's domain has, for constraints that need not be kept.
    pub fn crowding(&self, host: &Host) -> i64 {
        let most = self.counts.values().copied().max().unwrap_or(0);
        let count = host.label(&self.key).map_or(most + 1, |d| self.counts.get(d).copied().unwrap_or(0));
        if self.required { 0 } else { count }
    }
}

/// Whether a node's pods count: `nodeAffinityPolicy` and `nodeTaintsPolicy` (KEP-3094).
fn counts_for(spec: &PodSpec, constraint: &TopologySpreadConstraint, host: &Host) -> bool {
    let honors = |policy: Option<&String>, default| policy.map_or(default, |policy| policy == "Honor");
    (!honors(constraint.node_affinity_policy.as_ref(), true) || wants_node(spec, host))
        && (!honors(constraint.node_taints_policy.as_ref(), false) || untolerated(spec, host).is_none())
}

/// How many pods like this one a node has: those of the same controller, or for a pod without one those
/// with the same labels. Replicas stay apart even where nobody asked for it.
pub fn siblings(pod: &Pod, host: &Host) -> usize {
    let owner = |pod: &Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next()
    };
    let own = owner(pod);
    let labels = pod.metadata.labels.as_ref().filter(|labels| !labels.is_empty());
    let alike = |other: &Pod| match &own {
        Some(uid) => owner(other).as_ref() == Some(uid),
        None => labels.is_some() && other.metadata.labels.as_ref() == labels,
    };
    let here = host
        .pods
        .iter()
        .filter(|other| !is_leaving(other) && namespace(other) == namespace(pod) && alike(other));
    here.count()
}
