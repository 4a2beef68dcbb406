//! ReplicaSets and ReplicationControllers: as many pods as asked for.
//!
//! Follows `pkg/controller/replicaset`, which is `pkg/controller/replication` too: which pods count, adoption and release by selector, the order in
//! which pods are given up, the status. Upstream's expectations are not needed: a reconciliation sees
//! every write that one before it made.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::Object;
use objects::{Kind, Meta, Pod, Write, selects};
use serde_json::{Value, json};

use crate::claim::{adopt, is_everything, own, release};
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Orphans, Owner, with_labels};
use crate::kept::{ReplicaSet, ReplicaSetSpec, ReplicationController};
use crate::key::Key;
use crate::plan::{Plan, difference, merge};
use crate::pod_writes::from_template;
use crate::replicas::{Count, Replicas};
use crate::selectors::{Labels, Selector, Selectors, Selects, required};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use crate::{pod_writes, pods, victims};

/// The most pods that one reconciliation makes or deletes; the next one goes on: upstream's `BurstReplicas`.
const BURST: usize = 500;
/// How long a status waits for its next look, for each pod: while thousands become ready, it is written a few times a
/// second and not for each of them.
const STATUS_PAUSE: Duration = Duration::from_micros(10);
/// The condition of a set whose pods are refused.
pub(crate) const FAILURE: &str = "ReplicaFailure";

/// What asks for a number of pods of a template.
pub(crate) trait Replicated: Kind + 'static {
    /// The name of what looks after it, in keys and figures.
    const CONTROLLER: &'static str;
    /// Its name in Events.
    const COMPONENT: &'static str;
    /// Whether its status says how many pods are being deleted.
    const SHOWS_TERMINATING: bool;

    /// What it asks for.
    fn spec(&self) -> Option<&ReplicaSetSpec>;

    /// Its status.
    fn status(&self) -> Option<&ReplicaSetStatus>;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";
    const SHOWS_TERMINATING: bool = true;

    fn spec(&self) -> Option<&ReplicaSetSpec> {
        self.spec.as_ref()
    }

    fn status(&self) -> Option<&ReplicaSetStatus> {
        self.status.as_ref()
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";
    const COMPONENT: &'static str = "replication-controller";
    const SHOWS_TERMINATING: bool = false;

    fn spec(&self) -> Option<&ReplicaSetSpec> {
        self.spec.as_ref().map(|spec| &spec.0)
    }

    fn status(&self) -> Option<&ReplicaSetStatus> {
        self.status.as_ref()
    }
}

/// Gives those of one kind as many pods as they ask for.
pub(crate) struct Sets<T>(PhantomData<fn() -> T>);

impl<T> Sets<T> {
    /// The controller of a kind.
    pub const fn new() -> Self {
        Sets(PhantomData)
    }
}

impl<T: Replicated> Controller for Sets<T> {
    fn name(&self) -> &'static str {
        T::CONTROLLER
    }

    fn component(&self) -> &'static str {
        T::COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<T>();
        watches.index::<Selectors<Sets<T>>>();
        watches.index::<Replicas>();
        watches.index::<By<Owner<Pod>>>();
        watches.index::<By<Orphans<Pod>>>();
        watches.index::<By<Owner<T>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<T>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(change.of::<T>().into_iter().flat_map(both));
        for pod in change.of::<Pod>().into_iter().flat_map(both) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == T::KIND => due.now(namespace, &owner.name),
                Some(_) => {}
                None => {
                    let labels = pod.metadata.labels.as_deref();
                    let sets = view.index::<Selectors<Sets<T>>>().into_iter();
                    due.objects(sets.flat_map(|sets| sets.of(namespace, labels)));
                }
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile::<T>(view, key.namespace(), key.name(), moment.now.wall)
    }
}

impl<T: Replicated> Selects for Sets<T> {
    type Of = T;

    fn selector(set: &T) -> Option<Selector<'_>> {
        set.spec().map(|spec| Selector::Full(&spec.selector))
    }
}

/// Brings one of them nearer to its spec.
fn reconcile<T: Replicated>(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = view.table::<T>().get(namespace, name) else { return plan };
    let Some(spec) = set.spec() else { return plan };
    let set = set.as_ref();
    let claimed = claim(view, set, spec, &mut plan);
    if set.metadata().deletion_timestamp().is_none() && view.is_open(namespace) {
        scale(view, set, spec, &claimed, now, &mut plan);
    }
    // Changes of size are not held up; only reports of them are put together.
    if plan.actions.is_empty() {
        plan.pause = STATUS_PAUSE * u32::try_from(claimed.count.active).unwrap_or(u32::MAX);
    }
    status(view, set, spec, &claimed.count, claimed.labeled, now, &mut plan);
    plan
}

/// The pods of a set.
struct Claimed<'a> {
    count: Count,
    /// How many of the active ones have all labels of the template.
    labeled: usize,
    /// Orphans that this reconciliation adopts; they are counted already.
    adopted: Vec<&'a Arc<Pod>>,
}

impl<'a> Claimed<'a> {
    /// Those that are active, one by one.
    fn active<T: Replicated>(&self, view: &'a View, set: &T, spec: &ReplicaSetSpec) -> Vec<&'a Arc<Pod>> {
        let own = own::<_, Pod>(view, set)
            .filter(|pod| pods::is_active(pod) && selects(&spec.selector, pod.metadata.labels.as_deref()));
        own.chain(self.adopted.iter().copied()).collect()
    }
}

/// Counts the pods of a set. Orphans that its selector means are adopted, pods that it no longer means released.
fn claim<'a, T: Replicated>(view: &'a View, set: &T, spec: &ReplicaSetSpec, plan: &mut Plan) -> Claimed<'a> {
    let uid = set.metadata().uid().unwrap_or_default();
    let namespace = set.metadata().namespace();
    let template = &spec.template.labels;
    let is_labeled = |own: &Labels| template.iter().all(|(name, value)| own.get(name) == Some(value));
    let mut claimed = Claimed { count: Count::default(), labeled: 0, adopted: Vec::new() };
    let mut some_released = false;
    for (labels, count) in view.index::<Replicas>().into_iter().flat_map(|kept| kept.of(namespace, uid)) {
        if selects(&spec.selector, Some(labels)) {
            claimed.count.add(count);
            claimed.labeled += if is_labeled(labels) { count.active } else { 0 };
        } else {
            some_released = true;
        }
    }
    if set.metadata().deletion_timestamp().is_some() {
        return claimed;
    }
    let released =
        own::<_, Pod>(view, set).filter(|pod| !selects(&spec.selector, pod.metadata.labels.as_deref()));
    for pod in some_released.then_some(released).into_iter().flatten() {
        release(set, pod.as_ref(), plan);
    }
    if is_everything(&spec.selector) {
        return claimed;
    }
    let orphans = with_labels::<Orphans<Pod>>(view, namespace, required(&spec.selector));
    for pod in
        orphans.filter(|pod| pods::is_active(pod) && selects(&spec.selector, pod.metadata.labels.as_deref()))
    {
        adopt(set, pod.as_ref(), plan);
        claimed.count.count(pod);
        claimed.labeled += usize::from(pod.metadata.labels.as_deref().is_some_and(&is_labeled));
        claimed.adopted.push(pod);
    }
    claimed
}

fn scale<T: Replicated>(
    view: &View,
    set: &T,
    spec: &ReplicaSetSpec,
    claimed: &Claimed<'_>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let active = claimed.count.active;
    if active < wanted {
        let Some(pod) = new_pod(view, set) else { return };
        // Where pods are refused, one is enough to find out whether they still are.
        let burst = if has_failed(set) { 1 } else { BURST };
        for _ in 0..(wanted - active).min(burst) {
            let mut action = pod_writes::creation(set, pod.clone());
            action.otherwise = failure(set, "FailedCreate", now);
            plan.actions.push(action);
        }
    } else if active > wanted {
        let surplus = (active - wanted).min(BURST);
        let related = pods_per_node(view, set, spec);
        for pod in victims::choose(claimed.active(view, set, spec), &related, surplus, now) {
            let mut action = pod_writes::deletion(set, pod);
            action.otherwise = failure(set, "FailedDelete", now);
            plan.actions.push(action);
        }
    }
}

/// Whether the set says that pods of it were refused.
fn has_failed<T: Replicated>(set: &T) -> bool {
    conditions(set).any(|condition| condition.type_ == FAILURE)
}

fn conditions<T: Replicated>(set: &T) -> impl Iterator<Item = &ReplicaSetCondition> {
    set.status().into_iter().flat_map(|status| status.conditions.iter().flatten())
}

/// The condition that says why a set doesn't have its size, unless it says that already; `{}` stands for the reason.
fn failure<T: Replicated>(set: &T, reason: &str, now: Timestamp) -> Option<Write> {
    if has_failed(set) {
        return None;
    }
    let mut all: Vec<ReplicaSetCondition> = conditions(set).cloned().collect();
    all.push(ReplicaSetCondition {
        type_: FAILURE.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some("{}".into()),
        last_transition_time: Some(Time(now)),
    });
    Some(merge(set, "status", json!({"status": {"conditions": all}})))
}

/// A pod from the set's template.
fn new_pod<T: Replicated>(view: &View, set: &T) -> Option<Object> {
    let stored = view.json(set)?;
    let generate_name = format!("{}-", set.metadata().name());
    Object::from_value(from_template(set, stored.pointer("/spec/template")?, &generate_name)?)
}

/// How many active pods of the set and of its siblings each node has: siblings share the controller, so
/// that while one set replaces another, nodes with pods of both are relieved first.
fn pods_per_node<T: Replicated>(view: &View, set: &T, spec: &ReplicaSetSpec) -> HashMap<String, usize> {
    let namespace = set.metadata().namespace();
    let siblings: Vec<&str> = match controller_of(set.metadata()) {
        Some(owner) => view.by::<Owner<T>>(&owner.uid).filter_map(|set| set.metadata().uid()).collect(),
        None => set.metadata().uid().into_iter().collect(),
    };
    let orphans = with_labels::<Orphans<Pod>>(view, namespace, required(&spec.selector))
        .filter(|pod| selects(&spec.selector, pod.metadata.labels.as_deref()));
    let related = siblings.into_iter().flat_map(|uid| view.by::<Owner<Pod>>(uid)).chain(orphans);
    let mut count = HashMap::new();
    for node in related.filter(|pod| pods::is_active(pod)).filter_map(|pod| pod.node()) {
        *count.entry(node.to_owned()).or_default() += 1;
    }
    count
}

fn status<T: Replicated>(
    view: &View,
    set: &T,
    spec: &ReplicaSetSpec,
    count: &Count,
    labeled: usize,
    now: Timestamp,
    plan: &mut Plan,
) {
    let minimum = Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let (available, next) = count.available(minimum, now);
    next.into_iter().for_each(|wait| plan.again(wait));
    let number = |n: usize| if n == 0 { Value::Null } else { n.into() };
    let has_its_size = usize::try_from(spec.replicas.unwrap_or(1)).is_ok_and(|n| n == count.active);
    let kept = conditions(set).filter(|condition| condition.type_ != FAILURE || !has_its_size);
    let kept: Vec<&ReplicaSetCondition> = kept.collect();
    let mut wanted = json!({
        "conditions": if kept.is_empty() { Value::Null } else { json!(kept) },
        "replicas": count.active,
        "fullyLabeledReplicas": number(labeled),
        "readyReplicas": number(count.ready),
        "availableReplicas": number(available),
        "observedGeneration": set.metadata().generation(),
    });
    if T::SHOWS_TERMINATING {
        wanted["terminatingReplicas"] = count.terminating.into();
    }
    let stored = view.json(set);
    let current = stored.as_ref().and_then(|stored| stored.get("status"));
    if let Some(patch) = wanted.as_object().and_then(|wanted| difference(current, wanted)) {
        plan.write(merge(set, "status", json!({"status": patch})));
    }
}
