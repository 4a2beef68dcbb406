//! The decision: which node a pod goes to, or why none.

use objects::Pod;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::affinity::preferred_node;
use super::cluster::{Cluster, Host};
use super::filter::{Wish, discouraged};
use super::spread::siblings;

/// The node for a pod.
///
/// Nodes that can't have it are left out; of the others the best has, in this order: what the pod or the
/// node prefers, the fewest pods like this one (so that three replicas are on three hosts whenever
/// three can have one), the fewest in its zone, the most room left, the fewest pods, the first name.
///
/// # Errors
/// Against how many nodes each reason stands, if no node can have it.
pub fn schedule(cluster: &Cluster, pod: &Pod) -> Result<String, BTreeMap<String, usize>> {
    let mut reasons = BTreeMap::new();
    let Some(spec) = &pod.spec else { return Err(reasons) };
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
    best.map(|(_, name)| name).ok_or(reasons)
}

fn zone(host: &Host) -> &str {
    host.label("topology.kubernetes.io/zone").unwrap_or_default()
}
