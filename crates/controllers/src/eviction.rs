//! Taints with the effect NoExecute: pods that don't tolerate one are evicted, others once they did for as long as
//! they say.
//!
//! Follows `pkg/controller/tainteviction`. Upstream remembers since when a pod is to go; here that is in the taint
//! itself (`timeAdded`), so that a new leader goes on where the old one was. The taint `unreachable`, by which a
//! silent host's pods are replaced, is the node's own affair.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Delete, Occurrence, Pod, Write, tolerates};
use serde_json::{Value, json};

use crate::index::OnNode;
use crate::kept::Node;
use crate::node::UNREACHABLE;
use crate::plan::{Action, Note, Plan, delete, merge_this, subject};
use crate::pods;
use crate::view::View;

/// The taint that says of a silent node that it is switched off.
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const TARGET: &str = "DisruptionTarget";
const REASON: &str = "DeletionByTaintManager";

/// Evicts the pods of a node that don't tolerate its taints, or don't any longer.
pub(crate) fn evict(view: &View, node: &Arc<Node>, now: Timestamp, plan: &mut Plan) {
    let taints: Vec<&Taint> = taints(node).filter(|taint| is_ours(taint)).collect();
    if taints.is_empty() {
        return;
    }
    let mut timed = false;
    for pod in view.by::<OnNode>(node.metadata.name.as_deref().unwrap_or_default()) {
        if !pods::is_active(pod) {
            continue;
        }
        let left = taints.iter().filter_map(|taint| left(taint, pod, now, &mut timed)).min();
        match left {
            Some(Duration::ZERO) => plan.actions.extend(remove(view, pod, now)),
            Some(wait) => plan.again(wait),
            None => {}
        }
    }
    if timed && taints.iter().any(|taint| taint.time_added.is_none()) {
        plan.write(stamp(node, now));
    }
}

/// Forgets the pods that are being deleted on a node of which somebody says, by a taint, that it is switched off: nobody
/// will ever say that they ended (`gcTerminating` of `pkg/controller/podgc`, KEP-2268).
pub(crate) fn end_out_of_service(view: &View, node: &Node, plan: &mut Plan) {
    if !taints(node).any(|taint| taint.key == OUT_OF_SERVICE) {
        return;
    }
    let on_it = view.by::<OnNode>(node.metadata.name.as_deref().unwrap_or_default());
    for pod in on_it.filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        let options = Delete { uid: pod.metadata.uid.clone(), grace_seconds: Some(0), ..Delete::default() };
        plan.write(Write::Delete { subject: subject(pod.as_ref()), options });
    }
}

/// The event with which a pod goes because of a taint.
pub(crate) fn told(pod: &Pod) -> Note {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let told = format!("Marking for deletion Pod {namespace}/{name}");
    Note::Event(Occurrence::of(pod, false, "TaintManagerEviction", told))
}

/// How long a pod may tolerate a taint: nothing if for ever; and how many seconds it says, of the first toleration that
/// means the taint (`GetMatchingTolerations`).
pub(crate) fn tolerated(taint: &Taint, pod: &Pod) -> Option<Duration> {
    let mut tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    match tolerations.find(|toleration| tolerates(toleration, taint)) {
        None => Some(Duration::ZERO),
        Some(toleration) => {
            toleration.toleration_seconds.map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
        }
    }
}

pub(crate) fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn is_ours(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && taint.key != UNREACHABLE
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
    let scheduled = pods::condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    scheduled.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Notes on the taints since when they are there. Times go over the wire in whole seconds: rounded up, so that no pod
/// goes before its time.
fn stamp(node: &Arc<Node>, now: Timestamp) -> Write {
    let whole = now.subsec_nanosecond() == 0;
    let since = if whole { now } else { now + Duration::from_secs(1) };
    let stamped = taints(node).cloned().map(|mut taint| {
        if is_ours(&taint) && taint.time_added.is_none() {
            taint.time_added = Some(Time(since));
        }
        taint
    });
    let list: Vec<Taint> = stamped.collect();
    merge_this(node.as_ref(), "", json!({"spec": {"taints": list}}))
}

/// First the pod says why it goes, then it does: its deletion is decided on once that is written.
pub(crate) fn remove(view: &View, pod: &Arc<Pod>, now: Timestamp) -> Option<Action> {
    let says = pods::condition(pod, TARGET)
        .is_some_and(|known| known.status == "True" && known.reason.as_deref() == Some(REASON));
    if says {
        return Some(Action::from(delete(pod.as_ref())).telling(told(pod)));
    }
    let stored = view.json(pod.as_ref())?;
    let mut conditions =
        stored.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != TARGET);
    conditions.push(json!(PodCondition {
        type_: TARGET.into(),
        status: "True".into(),
        reason: Some(REASON.into()),
        message: Some("Taint manager: deleting due to NoExecute taint".into()),
        last_transition_time: Some(Time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }));
    let status = json!({"status": {"conditions": conditions}});
    Some(merge_this(pod.as_ref(), "status", status).into())
}
