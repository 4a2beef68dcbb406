//! Nodes that fell silent: marked, tainted, and their stateless pods replaced.
//!
//! A host's agent writes all conditions of its Node, when it starts and from then on. This controller only turns them
//! to Unknown once the host is silent, and takes its own taints away once the agent says Ready again. Taints and
//! tolerations follow `pkg/controller/nodelifecycle` and `tainteviction` (other taints of that effect: [`eviction`]);
//! silence comes from heartbeats and not from leases. As there, what the agent writes is a sign of life too: a host
//! that comes back may be heard through the store before its first heartbeat is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Change, Delete, Occurrence, Pod, Write, tolerates};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Action, Note, Plan, merge_this, subject};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use crate::{eviction, pods};

/// A host that was silent for this long is not ready, and its stateless pods get spares, unless configured otherwise.
pub const GRACE: Duration = Duration::from_millis(1100);

/// The taint of a node that is not heard.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Keeps the conditions, taints and pods of nodes in line with what is heard of them.
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
        watches.index::<By<OnNode>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Node>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Node>(change);
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        // A pod may be placed on, or say Ready from, a host that is silent.
        if let Some(node) = pod.and_then(|pod| view.table::<Node>().get("", pod.node()?))
            && eviction::taints(node).next().is_some()
        {
            due.object(node.as_ref());
        }
    }

    fn heard(&self, host: &str, due: &mut Due<'_>) {
        due.now("", host);
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let since = moment.silence.get(key.name());
        let silent_for = since.map(|since| moment.now.instant.saturating_duration_since(*since));
        reconcile(view, key.name(), silent_for, moment.now.wall)
    }
}

/// Brings one node's conditions, taints and pods in line with what is heard of it; `silent_for` is how
/// long it was not heard from, if it is silent.
fn reconcile(view: &View, name: &str, silent_for: Option<Duration>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = view.table::<Node>().get("", name) else { return plan };
    if let Some(left) =
        silent_for.and_then(|silent| view.grace().checked_sub(silent)).filter(|l| !l.is_zero())
    {
        plan.again(left);
    }
    let silent = silent_for.is_some_and(|silent| silent >= view.grace());
    if silent {
        plan.actions.extend(mark(view, node, now));
    }
    let ready = ready_status(node);
    let marked = ready == "Unknown";
    // The version that the status went into is another one: the taints follow when that is written.
    if plan.actions.is_empty() {
        taint(node, ready, now, &mut plan);
    }
    if plan.actions.is_empty() {
        eviction::evict(view, node, now, &mut plan);
    }
    if ready != "True" {
        eviction::end_out_of_service(view, node, &mut plan);
    }
    if silent || marked {
        for pod in view.by::<OnNode>(name) {
            leave(view, node, pod, now, &mut plan);
        }
    }
    plan
}

/// The node's condition Ready, if it has one.
fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|condition| condition.type_ == "Ready")
}

/// The status of the node's condition Ready, nothing if it has none.
fn ready_status(node: &Node) -> &str {
    ready(node).map_or("", |condition| &condition.status)
}

/// The name of the node whose agent wrote this change: nobody else makes a node Ready, or says that it
/// still is.
pub(crate) fn agent_spoke(change: &Change<Node>) -> Option<&str> {
    let node = change.new.as_deref()?;
    let said = |node: &Node| {
        let condition = ready(node).filter(|condition| condition.status == "True");
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
    if !conditions.iter().any(|condition| condition["type"] == "Ready") {
        conditions.push(json!({"type": "Ready"}));
    }
    for condition in &mut conditions {
        let ours = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        let ours = condition["type"].as_str().is_some_and(|kind| ours.contains(&kind));
        if ours && condition["status"] != "Unknown" {
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
    let name = node.metadata.name.clone().unwrap_or_default();
    let told = format!("Node {name} status is now: NodeNotReady");
    let event = Occurrence::of(node.as_ref(), false, "NodeNotReady", told);
    let write = merge_this(node.as_ref(), "status", json!({"status": {"conditions": conditions}}));
    let mut action = Action::from(write);
    let on_it = view.by::<OnNode>(&name).filter(|pod| is_stateful(pod) && !pods::is_finished(pod));
    action.done.extend(on_it.map(|pod| Note::Event(kept(&name, pod))));
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
         again, or is deleted, or has the taint {}",
        eviction::OUT_OF_SERVICE
    );
    Occurrence::of(pod, true, "NodeNotReady", told)
}

/// Gives the node the taints that go with its condition Ready, and takes those away that don't.
fn taint(node: &Arc<Node>, ready: &str, now: Timestamp, plan: &mut Plan) {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let mut wanted = Vec::new();
    match ready {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.push((NOT_READY, "NoSchedule")),
    }
    if cordoned {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        [UNREACHABLE, NOT_READY, UNSCHEDULABLE].contains(&taint.key.as_str())
            && taint.effect != "PreferNoSchedule"
    };
    let is_wanted =
        |taint: &Taint| wanted.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect);
    let mut kept: Vec<Taint> =
        taints.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !kept.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            let (key, effect) = ((*key).to_owned(), (*effect).to_owned());
            kept.push(Taint { key, effect, time_added: Some(Time(now)), value: None });
        }
    }
    if kept == taints {
        return;
    }
    let was_away = taints.iter().any(|taint| taint.key == UNREACHABLE || taint.key == NOT_READY);
    let list = if kept.is_empty() { Value::Null } else { json!(kept) };
    let mut action = Action::from(merge_this(node.as_ref(), "", json!({"spec": {"taints": list}})));
    if ready == "True" && was_away {
        let name = node.metadata.name.clone().unwrap_or_default();
        let told = format!("Node {name} status is now: NodeReady");
        action = action
            .telling(Note::Timeline { what: "node-ready", subject: name, pod: None })
            .telling(Note::Event(Occurrence::of(node.as_ref(), false, "NodeReady", told)));
    }
    plan.actions.push(action);
}

/// What happens to a pod of a silent node: one that another can stand in for is deleted, so that its owner
/// makes the spare now; then it doesn't count as serving any more.
fn leave(view: &View, node: &Node, pod: &Arc<Pod>, now: Timestamp, plan: &mut Plan) {
    if pods::is_finished(pod) {
        return;
    }
    if pod.metadata.deletion_timestamp.is_none() && (is_stateless(pod) || is_of_job(pod)) {
        match tolerated_for(node, pod, now) {
            // Its Job may ask why it failed.
            Some(Duration::ZERO) if is_of_job(pod) => {
                return plan.actions.extend(eviction::remove(view, pod, now));
            }
            Some(Duration::ZERO) => {
                let options = Delete { uid: pod.metadata.uid.clone(), ..Delete::default() };
                let write = Write::Delete { subject: subject(pod.as_ref()), options };
                plan.actions.push(Action::from(write).telling(eviction::told(pod)));
                return;
            }
            Some(wait) => plan.again(wait),
            None => {}
        }
    }
    if pods::is_ready(pod) {
        plan.actions.extend(not_ready(view, pod, now).map(Into::into));
    }
}

/// Whether another pod may stand in for this one without anyone knowing that this one ended. A StatefulSet's
/// pods and bare pods may not: two of them must never run.
fn is_stateless(pod: &Pod) -> bool {
    controller_of(&pod.metadata)
        .is_some_and(|owner| ["ReplicaSet", "ReplicationController"].contains(&owner.kind.as_str()))
}

/// Whether a Job makes another pod where this one fails. (Job's documentation: the same program may run twice at a time.)
fn is_of_job(pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job")
}

fn is_stateful(pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "StatefulSet")
}

/// How long the pod still tolerates that its node is unreachable; nothing: for ever.
///
/// The shortest of all tolerations that mean the taint counts, as in `getMinTolerationTime` of upstream's
/// tainteviction.
fn tolerated_for(node: &Node, pod: &Pod, now: Timestamp) -> Option<Duration> {
    let taint = Taint { key: UNREACHABLE.into(), effect: "NoExecute".into(), ..Taint::default() };
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let mut shortest = None;
    let mut forever = false;
    for toleration in tolerations.filter(|toleration| tolerates(toleration, &taint)) {
        match toleration.toleration_seconds {
            Some(seconds) => {
                let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                shortest = Some(shortest.map_or(wait, |other: Duration| other.min(wait)));
            }
            None => forever = true,
        }
    }
    let Some(tolerated) = shortest else { return (!forever).then_some(Duration::ZERO) };
    let unknown = ready(node).filter(|condition| condition.status == "Unknown");
    let since = unknown.and_then(|condition| condition.last_transition_time.as_ref()).map_or(now, |t| t.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(tolerated.saturating_sub(passed))
}

fn not_ready(view: &View, pod: &Arc<Pod>, now: Timestamp) -> Option<Write> {
    let stored = view.json(pod.as_ref())?;
    let mut conditions = stored.pointer("/status/conditions").and_then(Value::as_array).cloned()?;
    let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready")?;
    ready["status"] = "False".into();
    ready["reason"] = "NodeNotReady".into();
    ready["message"] = "The pod's node was not heard from.".into();
    ready["lastTransitionTime"] = json!(Time(now));
    Some(merge_this(pod.as_ref(), "status", json!({"status": {"conditions": conditions}})))
}
