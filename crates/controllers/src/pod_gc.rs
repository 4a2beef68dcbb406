//! Pods that nobody will ever end or look at again: of nodes that are gone, of nodes of which somebody says that they are switched
//! off (KEP-2268), without a node, and those that have ended, beyond a number.
//!
//! Follows `pkg/controller/podgc`: a pod that still seems to run is Failed first, so that controllers that count pods see it end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{DISRUPTION_TARGET, Delete, Meta, Pod, TypedRef, Write, disruption_target, merge_pod_status};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::node::ready_status;
use crate::plan::Plan;
use crate::pods;
use crate::tables::{Index, Watches};
use crate::touched::Touched;
use crate::view::View;

/// The taint that says of a silent node that it is switched off.
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How long a node may be missing before its pods are removed: it may just be registering anew (`quarantineTime`).
pub const QUARANTINE: Duration = Duration::from_secs(40);
/// The number of ended pods that are kept (`--terminated-pod-gc-threshold`).
const KEPT: usize = 12_500;
/// The most pods that one look removes, so that its writes don't crowd out others'.
const SLICE: usize = 500;
const COMPONENT: &str = "pod-garbage-collector-controller";
/// Why a pod is removed that still seemed to run.
const REASON: &str = "DeletionByPodGC";

/// Removes the pods of nodes that do not exist, and those that are to end on nodes that are switched off.
pub(crate) struct LostNodes;

impl Controller for LostNodes {
    fn name(&self) -> &'static str {
        "lost-node"
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

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let used = view.index::<By<OnNode>>().into_iter().flat_map(By::values);
        used.for_each(|name| look(view, name, due));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(node) = change.of::<Node>().and_then(crate::controller::latest) {
            look(view, node.metadata.name.as_deref().unwrap_or_default(), due);
        }
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        if let Some(name) = pod.and_then(|pod| pod.node()) {
            look(view, name, due);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let (mut plan, node) = (Plan::default(), view.table::<Node>().get("", key.name()));
        for pod in view.by::<OnNode>(key.name()) {
            match node {
                None => remove(view, pod, Some("PodGC: node no longer exists"), moment.now.wall, &mut plan),
                Some(node) if is_off(node) && pod.metadata.deletion_timestamp.is_some() => {
                    remove(view, pod, None, moment.now.wall, &mut plan);
                }
                Some(_) => {}
            }
        }
        plan
    }
}

/// A node's pods are looked at: at once if it is switched off, after a while if it is missing.
fn look(view: &View, name: &str, due: &mut Due<'_>) {
    match view.table::<Node>().get("", name) {
        None => due.later("", name, QUARANTINE),
        Some(node) if is_off(node) => due.now("", name),
        Some(_) => {}
    }
}

fn is_off(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    ready_status(node) != "True" && taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Removes pods that are to end and never began.
pub(crate) struct Unplaced;

impl Controller for Unplaced {
    fn name(&self) -> &'static str {
        "unplaced-pod"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Pod>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Pod>().iter().filter(|pod| is_unplaced(pod)));
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(change.of::<Pod>().and_then(|change| change.new.as_ref()).filter(|pod| is_unplaced(pod)));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let pod = view.table::<Pod>().get(key.namespace(), key.name());
        if let Some(pod) = pod.filter(|pod| is_unplaced(pod)) {
            remove(view, pod, None, moment.now.wall, &mut plan);
        }
        plan
    }
}

fn is_unplaced(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.node().is_none()
}

/// Removes the oldest of those that have ended, once they are more than [`KEPT`].
pub(crate) struct Ended;

impl Controller for Ended {
    fn name(&self) -> &'static str {
        "ended-pods"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<ByAge>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        if view.index::<ByAge>().is_some_and(|ended| ended.0.len() > KEPT) {
            due.now("", "");
        }
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if change.of::<Pod>().is_some() {
            self.all(view, due);
        }
    }

    fn reconcile(&self, view: &View, _: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(ended) = view.index::<ByAge>() else { return plan };
        let too_many = ended.0.len().saturating_sub(KEPT);
        let pods = ended.0.iter().filter_map(|(_, namespace, name)| view.table::<Pod>().get(namespace, name));
        for pod in pods.filter(|pod| !waits_for_others(pod)).take(too_many.min(SLICE)) {
            remove(view, pod, None, moment.now.wall, &mut plan);
        }
        plan
    }
}

/// The pods that have ended, the oldest first.
#[derive(Default)]
struct ByAge(BTreeSet<(Option<Timestamp>, String, String)>);

impl Index for ByAge {
    type Of = Pod;

    fn take(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        old.filter(|pod| pods::is_finished(pod)).map(|pod| self.0.remove(&aged(pod)));
        self.0.extend(new.filter(|pod| pods::is_finished(pod)).map(|pod| aged(pod)));
    }
}

fn aged(pod: &Pod) -> (Option<Timestamp>, String, String) {
    let metadata = &pod.metadata;
    let made = metadata.creation_timestamp.as_ref().map(|time| time.0);
    (made, metadata.namespace().to_owned(), metadata.name().to_owned())
}

/// A pod is Failed, with a condition that says why, and then is deleted without asking its host.
pub(crate) fn remove(view: &View, pod: &Arc<Pod>, why: Option<&str>, now: Timestamp, plan: &mut Plan) {
    if !pods::is_finished(pod) {
        plan.actions.extend(failed(view, pod, why, now).map(Into::into));
        plan.again(Duration::ZERO);
        return;
    }
    let metadata = &pod.metadata;
    if waits_for_others(pod) {
        return;
    }
    let options = Delete {
        uid: metadata.uid.clone(),
        // What its host says of it meanwhile may be that it runs again, in the next epoch of its lease.
        resource_version: metadata.resource_version(),
        grace_seconds: Some(0),
        ..Delete::default()
    };
    plan.write(Write::Delete { subject: TypedRef::of(pod.as_ref()), options });
}

/// Whether a pod's removal has begun: it is Failed for that, and not gone yet.
pub(crate) fn is_being_removed(pod: &Pod) -> bool {
    let target = pod.condition(DISRUPTION_TARGET);
    target.is_some_and(|target| target.status == "True" && target.reason.as_deref() == Some(REASON))
}

/// Whether a pod is being deleted, and only finalizers hold it.
fn waits_for_others(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let asked = metadata.deletion_timestamp.is_some() && metadata.deletion_grace_period_seconds == Some(0);
    asked && !metadata.finalizers().is_empty()
}

fn failed(view: &View, pod: &Pod, why: Option<&str>, now: Timestamp) -> Option<Write> {
    let said: Vec<_> = why.map(|why| disruption_target(pod, REASON, why, now)).into_iter().collect();
    merge_pod_status(pod, json!({"phase": "Failed", "conditions": said}), view.state())
}
