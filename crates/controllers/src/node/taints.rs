//! The taints that follow from a node's conditions (`doNoScheduleTaintingPass` and `processTaintBaseEviction` of
//! `pkg/controller/nodelifecycle`): those that keep new pods away at once, and the one that ends pods as fast as
//! [`zones`](super::zones) let it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::zones::Evictions;
use super::{NOT_READY, UNREACHABLE, condition};
use crate::fencing;
use crate::kept::Node;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are True, each with its taint.
const WHILE_TRUE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// The taints that a node should have: those that others gave it as they are, and ours as its conditions say.
pub(super) fn wanted(node: &Node, evictions: &Evictions, now: Timestamp) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut ours = Vec::new();
    let has = |key: &str, effect: &str| current.iter().any(|t| t.key == key && t.effect == effect);
    let away = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some((UNREACHABLE, true)),
        Some(_) => Some((NOT_READY, true)),
        // Its agent has never spoken: nothing is to be ended there.
        None => Some((NOT_READY, false)),
    };
    if let Some((key, ends)) = away {
        ours.push((key, NO_SCHEDULE));
        // A node that is tainted stays so, also if what is wrong with it is another thing now: only a new taint waits.
        let tainted = has(UNREACHABLE, NO_EXECUTE) || has(NOT_READY, NO_EXECUTE);
        let may = match evictions {
            Evictions::Go => true,
            Evictions::Wait(_) => tainted,
            Evictions::Stop => false,
        };
        if ends && may {
            ours.push((key, NO_EXECUTE));
        }
    }
    let holds = |kind: &str| condition(node, kind).is_some_and(|condition| condition.status == "True");
    let held = WHILE_TRUE.iter().filter(|(kind, _)| holds(kind));
    ours.extend(held.map(|(_, key)| (*key, NO_SCHEDULE)));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        ours.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    if fencing::is_fenced(node) {
        ours.push((fencing::TAINT, NO_SCHEDULE));
    }
    let is_wanted = |taint: &Taint| ours.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut list: Vec<Taint> =
        current.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &ours {
        if !has(key, effect) {
            let (key, effect) = ((*key).to_owned(), (*effect).to_owned());
            list.push(Taint { key, effect, time_added: Some(Time(whole(now))), value: None });
        }
    }
    list
}

/// Whether the conditions alone say that this taint is there.
fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    let by_effect = match taint.effect.as_str() {
        NO_EXECUTE => false,
        NO_SCHEDULE => {
            key == UNSCHEDULABLE || key == fencing::TAINT || WHILE_TRUE.iter().any(|(_, known)| *known == key)
        }
        _ => return false,
    };
    by_effect || key == UNREACHABLE || key == NOT_READY
}

/// A time as it goes over the wire, in whole seconds: rounded up, so that no pod goes before its time.
pub(crate) fn whole(now: Timestamp) -> Timestamp {
    if now.subsec_nanosecond() == 0 { now } else { now + Duration::from_secs(1) }
}
