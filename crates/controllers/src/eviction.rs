//! Taints with the effect NoExecute: pods that don't tolerate one are evicted, others once they did for as long as
//! they say.
//!
//! Follows `pkg/controller/tainteviction`. Upstream remembers since when a pod is to go; here that is in the taint
//! itself (`timeAdded`), so that a new leader goes on where the old one was. So it is with a silent host's pods too: how long
//! they stay is in their tolerations, which the API gives to all whose spare isn't made at once (`DefaultTolerationSeconds`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Change, DISRUPTION_TARGET, Occurrence, Pod, disruption_target, merge_pod_status, tolerates};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::node::UNREACHABLE;
use crate::node::taints::{NO_EXECUTE, whole};
use crate::plan::{Action, Note, Plan, delete, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;
use crate::{fencing, pods};

const REASON: &str = "DeletionByTaintManager";
const COMPONENT: &str = "taint-eviction-controller";

/// Evicts the pods of nodes with taints.
pub(crate) struct Evictions;

impl Controller for Evictions {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<By<OnNode>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Node>().iter().filter(|node| evicting(node).next().is_some()));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let node = change.of::<Node>().and_then(|change| change.new.as_ref());
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        let of_pod = pod.and_then(|pod| view.table::<Node>().get("", pod.node()?));
        due.objects(node.or(of_pod).filter(|node| evicting(node).next().is_some()));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if let Some(node) = view.table::<Node>().get("", key.name()) {
            evict(view, node, moment.now.wall, &mut plan);
        }
        plan
    }
}

/// Says of pods that were to be evicted later that they are not: the taint is gone in time, or another stands there.
pub(crate) struct Cancelled;

impl Controller for Cancelled {
    fn name(&self) -> &'static str {
        "cancelled-eviction"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<By<OnNode>>();
    }

    fn all(&self, _: &View, _: &mut Due<'_>) {
        // What was to be evicted before this member led is not known.
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let Some(Change { old: Some(old), new: Some(new), .. }) = change.of::<Node>() else { return };
        if evicting(old).next().is_none() || evicting(old).eq(evicting(new)) {
            return;
        }
        let waits = |node: &Node, pod: &Pod| evicting(node).filter_map(|taint| tolerated(taint, pod)).min();
        let on_it = view.by::<OnNode>(old.metadata.name.as_deref().unwrap_or_default());
        let cancelled = on_it.filter(|pod| {
            waits(old, pod).is_some_and(|wait| !wait.is_zero()) && waits(new, pod).is_none() && !says(pod)
        });
        due.objects(cancelled);
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let pod = view.table::<Pod>().get(key.namespace(), key.name()).filter(|pod| pods::is_active(pod));
        let told = pod.map(|pod| event(pod, "Cancelling deletion of Pod"));
        Plan { told: told.into_iter().collect(), ..Plan::default() }
    }
}

/// Evicts the pods of a node that don't tolerate its taints, or don't any longer.
fn evict(view: &View, node: &Arc<Node>, now: Timestamp, plan: &mut Plan) {
    let taints: Vec<&Taint> = evicting(node).collect();
    if taints.is_empty() {
        return;
    }
    let mut timed = false;
    for pod in view.by::<OnNode>(node.metadata.name.as_deref().unwrap_or_default()) {
        if !pods::is_active(pod) {
            continue;
        }
        // Until an unheard host is fenced such a pod may run there, and what is made in its place would run twice.
        let stays = fencing::may_run(node, pod);
        let taints = taints.iter().filter(|taint| !(stays && taint.key == UNREACHABLE));
        let left = taints.filter_map(|taint| left(taint, pod, now, &mut timed)).min();
        match left {
            Some(Duration::ZERO) => plan.actions.extend(remove(view, pod, now)),
            Some(wait) => plan.again(wait),
            None => {}
        }
    }
    if timed && taints.iter().any(|taint| taint.time_added.is_none()) {
        plan.actions.push(stamp(node, now));
    }
}

/// How long a pod may tolerate a taint: nothing if for ever; and how many seconds it says, of the first toleration that
/// means the taint (`GetMatchingTolerations`).
fn tolerated(taint: &Taint, pod: &Pod) -> Option<Duration> {
    let mut tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    match tolerations.find(|toleration| tolerates(toleration, taint)) {
        None => Some(Duration::ZERO),
        Some(toleration) => {
            toleration.toleration_seconds.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
        }
    }
}

/// The taints of a node that end pods.
fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

/// How long a pod may still stay in spite of a taint; nothing if for ever. `timed` becomes true if that depends on when
/// the taint was added.
fn left(taint: &Taint, pod: &Pod, now: Timestamp, timed: &mut bool) -> Option<Duration> {
    let tolerated = tolerated(taint, pod)?;
    if tolerated.is_zero() {
        return Some(tolerated);
    }
    *timed = true;
    // A pod that was placed in spite of the taint has its whole time from then on.
    let added = taint.time_added.as_ref().map_or(now, |time| time.0);
    let since = placed_at(pod).map_or(added, |placed| placed.max(added));
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(tolerated.saturating_sub(passed))
}

fn placed_at(pod: &Pod) -> Option<Timestamp> {
    let scheduled = pod.condition("PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    scheduled.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Notes on the taints since when they are there.
fn stamp(node: &Arc<Node>, now: Timestamp) -> Action {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let stamped = taints.cloned().map(|mut taint| {
        if taint.effect == NO_EXECUTE && taint.time_added.is_none() {
            taint.time_added = Some(Time(whole(now)));
        }
        taint
    });
    let list: Vec<Taint> = stamped.collect();
    merge_this(node.as_ref(), "", json!({"spec": {"taints": list}})).into()
}

/// First the pod says why it goes, then it does: its deletion is decided on once that is written.
fn remove(view: &View, pod: &Arc<Pod>, now: Timestamp) -> Option<Action> {
    if says(pod) {
        let told = Note::Event(event(pod, "Marking for deletion Pod"));
        return Some(Action::from(delete(pod.as_ref())).telling(told));
    }
    let why = "Taint manager: deleting due to NoExecute taint";
    let status = json!({"conditions": [disruption_target(pod, REASON, why, now)]});
    merge_pod_status(pod, status, view.state()).map(Action::from)
}

/// Whether a pod says that it goes because of a taint.
fn says(pod: &Pod) -> bool {
    pod.condition(DISRUPTION_TARGET)
        .is_some_and(|known| known.status == "True" && known.reason.as_deref() == Some(REASON))
}

fn event(pod: &Pod, what: &str) -> Occurrence {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Occurrence::of(pod, false, "TaintManagerEviction", format!("{what} {namespace}/{name}"))
}
