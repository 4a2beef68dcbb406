//! Hosts whose lease is over: marked as fenced, and what stopped there with the lease made free to run elsewhere.
//!
//! Silence is a guess, and a lease that is over is a fact (`membership::lease`). The mark stands in the replicated state: it is made for the
//! very epoch that the host has registered, and a host starts nothing that must not run twice in an epoch that is marked. So of a host that registers
//! and a leader that marks, the later one sees the other. Kubernetes has nobody who knows; there an administrator says by the taint `out-of-service`
//! (KEP-2268) what is known here, and what follows is the same (`pkg/controller/podgc`, `gcTerminating`).
//!
//! A host that registers no grade promises nothing, and is never marked; a pod of which its host doesn't say that it stops with the lease is
//! never touched here. Both are so for what an older version of this program started.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{FENCED_EPOCH, Fencing, Meta, Occurrence, Pod, STOPS_WITH_LEASE, SWITCH_ON_EPOCH};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, LeaseEnd, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::node::taints::{NO_SCHEDULE, whole};
use crate::plan::{Action, Note, Plan, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use crate::{pod_gc, pods};

/// A host that nobody can hear any more holds no lease after so long, unless configured otherwise.
pub const FENCED_AFTER: Duration = Duration::from_millis(2000);
/// How long a host that is back in a later epoch has to register it: one whose network went both ways again, or that was started anew, does so within
/// a second, and runs its pods itself.
const BACK: Duration = Duration::from_secs(3);
/// The taint that keeps new pods away from a host that is fenced.
pub(crate) const TAINT: &str = "holdfast.dev/fenced";

/// Marks hosts as fenced, and lets go what they ran.
pub(crate) struct Fences;

impl Controller for Fences {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn component(&self) -> &'static str {
        "fencing-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<By<OnNode>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Node>().iter().filter(|node| promises(node)));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let node = change.of::<Node>().and_then(|change| change.new.as_ref());
        due.objects(node.filter(|node| promises(node)));
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        let of_pod = pod.and_then(|pod| view.table::<Node>().get("", pod.node()?));
        due.objects(of_pod.filter(|node| is_fenced(node)));
    }

    fn heard(&self, host: &str, due: &mut Due<'_>) {
        due.now("", host);
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if let Some(node) = view.table::<Node>().get("", key.name()) {
            fence(view, node, moment, &mut plan);
        }
        plan
    }
}

/// What a Node says of its host's lease.
fn fencing(node: &Node) -> Fencing {
    Fencing::of(node.metadata.annotations())
}

fn promises(node: &Node) -> bool {
    fencing(node).grade.is_some()
}

/// Whether what stops with its host's lease has stopped there.
pub(crate) fn is_fenced(node: &Node) -> bool {
    fencing(node).is_fenced()
}

fn fence(view: &View, node: &Arc<Node>, moment: &Moment<'_>, plan: &mut Plan) {
    let (said, name) = (fencing(node), node.metadata.name.as_deref().unwrap_or_default());
    let (Some(_), Some(epoch)) = (said.grade, said.epoch) else { return };
    if said.is_fenced() {
        let why = format!("The lease of node {name} is over: this pod has stopped there");
        for pod in view.by::<OnNode>(name).filter(|pod| may_go(pod)) {
            pod_gc::remove(view, pod, Some(&why), moment.now.wall, plan);
        }
    } else if said.fenced.is_some() {
        let told = format!("Node {name} is back, in epoch {epoch} of its lease");
        let event = Occurrence::of(node.as_ref(), false, "NodeUnfenced", told);
        // The taint goes with the conditions' (`node::taints`).
        let gone = json!({"metadata": {"annotations": {(FENCED_EPOCH): null, (SWITCH_ON_EPOCH): null}}});
        plan.actions.push(mark(node, gone, event));
    } else if let Some(end) = moment.ended.get(name).filter(|end| end.epoch >= epoch) {
        if let Some(left) = hopes(end, moment) {
            plan.again(left);
            return;
        }
        let told = format!(
            "Node {name} is fenced: the lease of its epoch {epoch} is over, and what must not run twice has stopped there"
        );
        let event = Occurrence::of(node.as_ref(), true, "NodeFenced", told);
        // Together: what was let go must not be placed here again.
        let patch = json!({
            "metadata": {"annotations": {(FENCED_EPOCH): epoch.to_string()}},
            "spec": {"taints": taints(node, moment.now.wall)},
        });
        let told = Note::Timeline { what: "node-fenced", subject: name.to_owned(), pod: None };
        plan.actions.push(mark(node, patch, event).telling(told));
    }
}

/// For how long a host is still given time to go on by itself; nothing if it isn't.
fn hopes(end: &LeaseEnd, moment: &Moment<'_>) -> Option<Duration> {
    let left = BACK.saturating_sub(moment.now.instant.saturating_duration_since(end.since));
    (end.is_back && !left.is_zero()).then_some(left)
}

/// The mark holds for what was looked at and for nothing later: a host that registers its next epoch meanwhile is not marked.
fn mark(node: &Node, patch: Value, event: Occurrence) -> Action {
    Action::from(merge_this(node, "", patch)).telling(Note::Event(event))
}

/// A node's taints with that of a fenced one.
fn taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.retain(|taint| taint.key != TAINT);
    let (key, effect) = (TAINT.to_owned(), NO_SCHEDULE.to_owned());
    taints.push(Taint { key, effect, time_added: Some(Time(whole(now))), value: None });
    taints
}

/// Whether a pod that stops with its host's lease may still run there, though nobody hears the host.
pub(crate) fn may_run(node: &Node, pod: &Pod) -> bool {
    promises(node) && !is_fenced(node) && stops(pod)
}

fn stops(pod: &Pod) -> bool {
    pod.condition(STOPS_WITH_LEASE).is_some_and(|condition| condition.status == "True")
}

/// Whether a pod of a fenced host is in the way of another one: it is to end, or somebody makes it anew. A pod that nobody would make again
/// waits for its host.
fn may_go(pod: &Pod) -> bool {
    let is_to_go = pod.metadata.deletion_timestamp.is_some();
    let is_made_anew =
        controller_of(&pod.metadata).is_some() && (!pods::is_finished(pod) || pod_gc::is_being_removed(pod));
    stops(pod) && (is_to_go || is_made_anew)
}
