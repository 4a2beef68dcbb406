//! How many nodes of a zone are away, and whether their pods are to be replaced: where most nodes of a zone fall silent, it is
//! more likely that the way to them is cut than that all have died, and those that are left couldn't bear their pods.
//!
//! Follows `ComputeZoneState` and `handleDisruption` of `pkg/controller/nodelifecycle`, with one difference: where a zone is
//! well as a whole, nothing slows the replacement of what dies in it. Upstream allows one node in ten seconds there, because it
//! learns after 50 s of a silence that may be a slow answer; here a silent host is one whose heartbeats have ended.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::taints::NO_EXECUTE;
use super::{NOT_READY, UNREACHABLE, condition, lease, name, ready_status, silent_for};
use crate::controller::Moment;
use crate::kept::Node;
use crate::tables::Index;
use crate::view::View;

/// This many nodes being away is no disruption of a zone.
const FEW: usize = 2;
/// The part of a zone in percent that is away in a partial disruption (`--unhealthy-zone-threshold`).
const MOST: usize = 55;
/// In zones with at most this number of nodes nothing is replaced in a partial disruption (`--large-cluster-size-threshold`).
const LARGE: usize = 50;
/// In larger zones, one node in so long (`--secondary-node-eviction-rate`).
const SLOW: Duration = Duration::from_secs(100);
/// So often a disrupted zone is looked at again (`--node-monitor-period`).
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// The label of nodes that don't count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Whether pods of a node that is away are to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evictions {
    /// Now.
    Go,
    /// Not yet: look again after a while.
    Wait(Duration),
    /// No node is ready at all: the host that sees this is itself cut off.
    Stop,
}

/// The nodes that count, by zone.
#[derive(Default)]
pub(crate) struct Zones(HashMap<[String; 2], Zone>);

#[derive(Default)]
struct Zone {
    size: usize,
    /// The names of those whose agents don't say that they are ready.
    away: BTreeSet<String>,
}

impl Index for Zones {
    type Of = Node;

    fn take(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) {
        if let Some((node, zone)) = old.and_then(|node| Some((node, self.0.get_mut(&zone_of(node)?)?))) {
            zone.size -= 1;
            zone.away.remove(name(node));
            if zone.size == 0 {
                zone_of(node).and_then(|key| self.0.remove(&key));
            }
        }
        if let Some((node, key)) = new.and_then(|node| Some((node, zone_of(node)?))) {
            let zone = self.0.entry(key).or_default();
            zone.size += 1;
            if ready_status(node) != "True" {
                zone.away.insert(name(node).to_owned());
            }
        }
    }
}

/// Whether the pods of a node that is away may be ended now.
pub(super) fn evictions(view: &View, node: &Node, moment: &Moment<'_>) -> Evictions {
    let (Some(zones), Some(own)) = (view.index::<Zones>(), zone_of(node)) else { return Evictions::Go };
    // Who fell silent together with this one and hasn't been marked yet counts too.
    let mut silent: HashMap<[String; 2], usize> = HashMap::new();
    // Most leases were renewed a moment ago: those cost no look at the node.
    let soonest = view.grace().min(lease::GRACE) / 2;
    let heard = |since: &Instant| moment.now.instant.saturating_duration_since(*since) < soonest;
    for (name, _) in moment.silence.iter().chain(moment.leases).filter(|(_, since)| !heard(since)) {
        let Some(other) = view.table::<Node>().get("", name) else { continue };
        if ready_status(other) == "True"
            && silent_for(other, moment).is_some_and(|silent| silent >= super::grace(view, other) / 2)
            && let Some(zone) = zone_of(other)
        {
            *silent.entry(zone).or_default() += 1;
        }
    }
    let away = |key: &[String; 2], zone: &Zone| zone.away.len() + silent.get(key).copied().unwrap_or(0);
    if zones.0.iter().all(|(key, zone)| away(key, zone) >= zone.size) {
        return Evictions::Stop;
    }
    let Some(zone) = zones.0.get(&own) else { return Evictions::Go };
    let gone = away(&own, zone);
    if gone <= FEW || gone >= zone.size || gone * 100 < zone.size * MOST {
        return Evictions::Go;
    }
    if zone.size <= LARGE {
        return Evictions::Wait(LOOK);
    }
    slowly(view, zone, name(node), moment.now.wall)
}

/// One node of a zone after the other: when the last one was tainted is written in its taint, so that the next leader goes on.
fn slowly(view: &View, zone: &Zone, name: &str, now: Timestamp) -> Evictions {
    let nodes = || zone.away.iter().filter_map(|name| view.table::<Node>().get("", name));
    let last = nodes().filter_map(|node| tainted_at(node)).max();
    let passed = last.map(|last| Duration::try_from(now.duration_since(last)).unwrap_or_default());
    if let Some(left) = passed.and_then(|passed| SLOW.checked_sub(passed)).filter(|left| !left.is_zero()) {
        return Evictions::Wait(left);
    }
    let first =
        // One that never said how it is gets no taint that ends pods.
        nodes().find(|node| condition(node, "Ready").is_some() && tainted_at(node).is_none()).map(|node| super::name(node));
    if first.is_none_or(|first| first == name) { Evictions::Go } else { Evictions::Wait(LOOK) }
}

fn tainted_at(node: &Node) -> Option<Timestamp> {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taint = taints.find(|t| t.effect == NO_EXECUTE && [UNREACHABLE, NOT_READY].contains(&t.key.as_str()));
    taint.map(|taint| taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

/// The zone that a node counts in; nothing if it counts nowhere.
fn zone_of(node: &Node) -> Option<[String; 2]> {
    let labels = node.metadata.labels.as_ref();
    if labels.is_some_and(|labels| labels.contains_key(EXCLUDED)) {
        return None;
    }
    Some(LABELS.map(|label| labels.and_then(|labels| labels.get(label)).cloned().unwrap_or_default()))
}
