//! The decision: which node a pod goes to, or why none.

use objects::Pod;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use crate::affinity::preferred_node;
use crate::cluster::{Cluster, Host};
use crate::filter::{Wish, discouraged};
use crate::spread::siblings;

/// Why a pod can be on no node, in kube-scheduler's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// Against how many of them each reason stands.
    pub reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, "{}.", reasons.join(", "))
    }
}

/// The node for a pod.
///
/// Nodes that can't have it are left out; of the others the best has, in this order: what the pod or the
/// node prefers, the fewest pods like this one (so that three replicas are on three hosts whenever
/// three can have one), the fewest in its zone, the most room left, the fewest pods, the first name.
///
/// # Errors
/// [`Unschedulable`] if no node can have it.
pub fn schedule(cluster: &Cluster, pod: &Pod) -> Result<String, Unschedulable> {
    let nodes = cluster.hosts.len();
    let mut reasons = BTreeMap::new();
    let Some(spec) = &pod.spec else { return Err(Unschedulable { nodes, reasons }) };
    let wish = Wish::new(pod, spec, cluster);
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for host in cluster.hosts.values() {
        *zones.entry(zone(host)).or_default() += siblings(pod, host);
    }
    let mut best = None;
    for host in cluster.hosts.values() {
        let against = wish.against(host);
        if !against.is_empty() {
            for reason in against {
                *reasons.entry(reason).or_default() += 1;
            }
            continue;
        }
        let crowding: i64 = wish.spreading.iter().map(|constraint| constraint.crowding(host)).sum();
        let score = (
            discouraged(spec, host),
            Reverse(preferred_node(pod, host) + wish.neighbours.preference(host)),
            crowding,
            siblings(pod, host),
            zones.get(zone(host)).copied().unwrap_or(0),
            wish.usage(host),
            host.pods.len(),
        );
        if best.as_ref().is_none_or(|(other, _)| score < *other) {
            best = Some((score, host.name().to_owned()));
        }
    }
    best.map(|(_, name)| name).ok_or(Unschedulable { nodes, reasons })
}

fn zone(host: &Host) -> &str {
    host.label("topology.kubernetes.io/zone").unwrap_or_default()
}
