//! Nodes that fell silent: marked, tainted, and their pods not ready any more.
//!
//! A host's agent writes all conditions of its Node, when it starts and from then on. This controller only turns them
//! to Unknown once the host is silent, and keeps the taints that go with the conditions ([`taints`]); what pods do about
//! taints is said in [`eviction`](crate::eviction). Follows `pkg/controller/nodelifecycle`, but silence comes from heartbeats
//! where there are any, and from leases elsewhere ([`lease`]). As there, what the agent writes is a sign of life too: a host
//! that comes back may be heard through the store before its first heartbeat is.

mod known;
pub(crate) mod lease;
pub(crate) mod taints;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Change, Occurrence, Pod};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Action, Note, Plan, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use crate::{pod_gc, pods};
use zones::{Evictions, Zones};

/// A host that was silent for this long is not ready, and its stateless pods get spares, unless configured otherwise.
pub const GRACE: Duration = Duration::from_millis(1100);

/// The taint of a node that is not heard.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of a node whose agent says that it isn't ready.
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Keeps the conditions and taints of nodes in line with what is heard of them.
pub(crate) struct Nodes;

impl Controller for Nodes {
    fn name(&self) -> &'static str {
        "node"
    }

    fn component(&self) -> &'static str {
        "node-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<Zones>();
        watches.index::<By<OnNode>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Node>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Node>(change);
        // A pod may be placed on, or say Ready from, a host that is silent.
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref()).filter(|pod| pods::is_ready(pod));
        if let Some(node) = pod.and_then(|pod| view.table::<Node>().get("", pod.node()?))
            && ready_status(node) == "Unknown"
        {
            due.object(node.as_ref());
        }
    }

    fn heard(&self, host: &str, due: &mut Due<'_>) {
        due.now("", host);
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let node = view.table::<Node>().get("", key.name());
        let mut plan = node.map_or_else(Plan::default, |node| reconcile(view, node, moment));
        known::tell(key.name(), node.map(AsRef::as_ref), moment.notes, &mut plan);
        plan
    }
}

/// Brings one node's conditions and taints in line with what is heard of it.
fn reconcile(view: &View, node: &Arc<Node>, moment: &Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let (grace, silent_for) = (grace(view, node), silent_for(node, moment));
    if let Some(left) = silent_for.and_then(|silent| grace.checked_sub(silent)).filter(|l| !l.is_zero()) {
        plan.again(left);
    }
    let now = moment.now.wall;
    let silent = silent_for.is_some_and(|silent| silent >= grace);
    if silent {
        plan.actions.extend(mark(view, node, now));
    }
    // The version that the status went into is another one: the taints follow when that is written.
    if plan.actions.is_empty() {
        taint(view, node, moment, &mut plan);
    }
    if silent || ready_status(node) == "Unknown" {
        let ready =
            view.by::<OnNode>(name(node)).filter(|pod| pods::is_ready(pod) && !pods::is_finished(pod));
        plan.actions.extend(ready.filter_map(|pod| not_ready(view, pod, now)));
    }
    plan
}

/// For how long a node may give no sign of life.
fn grace(view: &View, node: &Node) -> Duration {
    match condition(node, "Ready") {
        _ if lease::beats(node) => view.grace(),
        Some(_) => lease::GRACE,
        None => lease::STARTUP,
    }
}

/// For how long a node has given none; nothing if it isn't silent.
fn silent_for(node: &Node, moment: &Moment<'_>) -> Option<Duration> {
    let signs = if lease::beats(node) { moment.silence } else { moment.leases };
    signs.get(name(node)).map(|since| moment.now.instant.saturating_duration_since(*since))
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// The node's condition of this type, if it has one.
pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|condition| condition.type_ == kind)
}

/// The status of the node's condition Ready, nothing if it has none.
pub(crate) fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |condition| &condition.status)
}

/// The name of the node whose agent wrote this change: nobody else makes a node Ready, or says that it
/// still is.
pub(crate) fn agent_spoke(change: &Change<Node>) -> Option<&str> {
    let node = change.new.as_deref()?;
    let said = |node: &Node| {
        let condition = condition(node, "Ready").filter(|condition| condition.status == "True");
        condition.map(|condition| condition.last_heartbeat_time.clone())
    };
    let now = said(node)?;
    let before = change.old.as_deref().and_then(said);
    (before != Some(now)).then_some(node.metadata.name.as_deref()?)
}

/// Turns the conditions that the agent keeps to Unknown.
fn mark(view: &View, node: &Arc<Node>, now: Timestamp) -> Option<Action> {
    let mut changed = false;
    let stored = view.json(node.as_ref())?;
    let mut conditions =
        stored.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let Some(condition) = conditions.iter_mut().find(|condition| condition["type"] == kind) else {
            conditions.push(json!({
                "type": kind, "status": "Unknown",
                "reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": Time(now),
            }));
            changed = true;
            continue;
        };
        if condition["status"] != "Unknown" {
            condition["status"] = "Unknown".into();
            condition["reason"] = "NodeStatusUnknown".into();
            condition["message"] = "Kubelet stopped posting node status.".into();
            condition["lastTransitionTime"] = json!(Time(now));
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    let write = merge_this(node.as_ref(), "status", json!({"status": {"conditions": conditions}}));
    let mut action = Action::from(write);
    let (name, before) = (name(node).to_owned(), ready_status(node));
    if before != "Unknown" {
        let on_it = view.by::<OnNode>(&name).filter(|pod| is_stateful(pod) && !pods::is_finished(pod));
        action.done.extend(on_it.map(|pod| Note::Event(kept(&name, pod))));
    }
    if before != "True" {
        return Some(action);
    }
    let told = format!("Node {name} status is now: NodeNotReady");
    let event = Occurrence::of(node.as_ref(), false, "NodeNotReady", told);
    Some(
        action
            .telling(Note::Timeline { what: "node-not-ready", subject: name, pod: None })
            .telling(Note::Event(event)),
    )
}

/// The Event of a StatefulSet's pod when its node falls silent, once for each silence.
fn kept(node: &str, pod: &Pod) -> Occurrence {
    let told = format!(
        "Node {node} is not heard: this pod may still run there, and another of its name is made only once the node is heard \
         again, or fenced, or is deleted, or has the taint {}",
        pod_gc::OUT_OF_SERVICE
    );
    Occurrence::of(pod, true, "NodeNotReady", told)
}

/// Gives the node the taints that go with its conditions, and takes those away that don't.
fn taint(view: &View, node: &Arc<Node>, moment: &Moment<'_>, plan: &mut Plan) {
    let is_ready = ready_status(node) == "True";
    let evictions = if is_ready { Evictions::Go } else { zones::evictions(view, node, moment) };
    // Whether it may go depends on what becomes of other nodes.
    if !is_ready {
        plan.again(match evictions {
            Evictions::Wait(wait) => wait,
            Evictions::Go | Evictions::Stop => zones::LOOK,
        });
    }
    let current = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let wanted = taints::wanted(node, &evictions, moment.now.wall);
    if current.clone().eq(&wanted) {
        return;
    }
    let was_away = current.into_iter().any(|taint| taint.key == UNREACHABLE || taint.key == NOT_READY);
    let list = if wanted.is_empty() { Value::Null } else { json!(wanted) };
    let mut action = Action::from(merge_this(node.as_ref(), "", json!({"spec": {"taints": list}})));
    if is_ready && was_away {
        let name = name(node).to_owned();
        let told = format!("Node {name} status is now: NodeReady");
        action = action
            .telling(Note::Timeline { what: "node-ready", subject: name, pod: None })
            .telling(Note::Event(Occurrence::of(node.as_ref(), false, "NodeReady", told)));
    }
    plan.actions.push(action);
}

fn is_stateful(pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "StatefulSet")
}

/// A pod of a silent node doesn't count as serving any more (`MarkPodsNotReady`).
fn not_ready(view: &View, pod: &Arc<Pod>, now: Timestamp) -> Option<Action> {
    let stored = view.json(pod.as_ref())?;
    let mut conditions = stored.pointer("/status/conditions").and_then(Value::as_array).cloned()?;
    let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready")?;
    ready["status"] = "False".into();
    ready["reason"] = "NodeNotReady".into();
    ready["message"] = "The pod's node was not heard from.".into();
    ready["lastTransitionTime"] = json!(Time(now));
    let action =
        Action::from(merge_this(pod.as_ref(), "status", json!({"status": {"conditions": conditions}})));
    if is_stateful(pod) {
        return Some(action);
    }
    let told = Occurrence::of(pod.as_ref(), true, "NodeNotReady", "Node is not ready".to_owned());
    Some(action.telling(Note::Event(told)))
}
