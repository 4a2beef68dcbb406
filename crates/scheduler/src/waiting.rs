//! The pods that wait for a node, and the cluster that they wait in, as of one revision of the state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use objects::{Change, Labels, Meta, Pod, Pool, Table, Uid, Write};
use store::{Event, State};

use crate::attachments::{CsiNode, VolumeAttachment};
use crate::cluster::{Cluster, is_finished, is_leaving, key};
use crate::device_claims::DeviceClaims;
use crate::metrics::Pending;
use crate::node::Node;
use crate::profile::Profiles;
use crate::queue::Queue;
use crate::rebalance::Rebalance;
use crate::unschedulable::{Hope, Preemption, Unschedulable, Victims};
use crate::wish::asks_the_same;

/// Hosts that are silent, each with the time when it was last heard.
pub type Silence = BTreeMap<String, Instant>;

/// What the scheduler looks at: one revision of the state, and its own placements that are on their way. It follows the
/// state change by change, and so does all that decisions are made from.
///
/// A pod is in the queue, in `assumed` or in `preempting`, never in two of them; one that is assumed has its place in the
/// cluster, and one that preempts its nomination, although the state doesn't show it yet.
#[derive(Debug)]
pub struct Waiting {
    state: Arc<State>,
    nodes: Table<Node>,
    csi_nodes: Table<CsiNode>,
    attachments: Table<VolumeAttachment>,
    pods: Table<Pod>,
    pool: Pool<Pod>,
    namespaces: Table<Namespace>,
    runtime_classes: Table<RuntimeClass>,
    budgets: Table<PodDisruptionBudget>,
    cluster: Cluster,
    queue: Queue,
    /// The uid of each pod that a bind is on its way for, with its key.
    assumed: HashMap<Uid, Bytes>,
    /// The uid of each pod that others are being told to go for, with its key.
    preempting: HashMap<Uid, Bytes>,
    rebalance: Rebalance,
}

/// What was decided about one pod.
#[derive(Debug)]
pub struct Decision {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its node, or why it has none.
    pub place: Result<String, Arc<Unschedulable>>,
    /// What has to be written before it is bound there, after which its claims must have their volumes; nothing if it can be bound
    /// at once. Where it has no place: what gives devices back that it alone has, so that it gets others.
    pub before: Option<Vec<Write>>,
    /// Whether others are to go for it now; the pod is held back until [`Waiting::forget`] says that this was tried.
    pub preempts: bool,
}

impl Waiting {
    /// What waits in a state, with pods of a pool.
    pub fn load(state: Arc<State>, pool: &Pool<Pod>) -> Self {
        Waiting::under(Profiles::default(), state, pool)
    }

    /// The same, of the pods that name one of these profiles.
    pub fn under(profiles: Profiles, state: Arc<State>, pool: &Pool<Pod>) -> Self {
        let mut waiting = Waiting {
            nodes: Table::load(&state),
            csi_nodes: Table::load(&state),
            attachments: Table::load(&state),
            namespaces: Table::load(&state),
            runtime_classes: Table::load(&state),
            budgets: Table::load(&state),
            pods: Table::load_shared(&state, pool),
            pool: pool.clone(),
            cluster: Cluster::new(profiles.clone()),
            queue: Queue::default(),
            assumed: HashMap::new(),
            preempting: HashMap::new(),
            rebalance: Rebalance::default(),
            state,
        };
        let cluster = &mut waiting.cluster;
        cluster.storage.load(&waiting.state);
        cluster.devices = DeviceClaims::load(&waiting.state);
        for node in waiting.nodes.iter() {
            cluster.set_node(node.name(), Some(node.clone()));
        }
        for node in waiting.csi_nodes.iter() {
            cluster.set_limits(node.metadata.name(), node.limits());
        }
        for attachment in waiting.attachments.iter() {
            cluster.set_attachment(attachment.metadata.name(), Some(&attachment.spec));
        }
        for namespace in waiting.namespaces.iter() {
            cluster.set_namespace(name(namespace.as_ref()), Some(labels(namespace)));
        }
        for class in waiting.runtime_classes.iter() {
            cluster.set_runtime_class(name(class.as_ref()), selector(class));
        }
        for budget in waiting.budgets.iter() {
            cluster.set_budget(namespace(budget), name(budget.as_ref()), Some(budget.clone()));
        }
        for pod in waiting.pods.iter() {
            match pod.node() {
                Some(node) => {
                    cluster.place(pod, node);
                }
                None if waits(pod, &profiles) => {
                    cluster.nominate(pod, nominated(pod));
                    waiting.queue.add(key(pod), pod);
                }
                None => {}
            }
        }
        // Nobody came back: all of them are new to it.
        waiting.cluster.take_returned();
        waiting
    }

    /// The state that this is about.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Moves on to a newer state.
    pub fn advance(&mut self, state: Arc<State>) {
        let from = self.state.revision().next();
        if state.revision() < from {
            return;
        }
        if state.check_history(from).is_err() {
            // Binds on their way are not in the state: without them these pods would be placed a second time. Neither are
            // all nominations.
            let assumed = std::mem::take(&mut self.assumed);
            let places: Vec<_> = assumed
                .into_iter()
                .filter_map(|(uid, key)| Some((uid, self.cluster.node_of(&key)?, key)))
                .collect();
            let preempting = std::mem::take(&mut self.preempting);
            let nominations: Vec<_> = preempting
                .into_iter()
                .filter_map(|(uid, key)| Some((uid, self.cluster.nominated_node(&key)?, key)))
                .collect();
            let rebalance = std::mem::take(&mut self.rebalance);
            *self = Waiting { rebalance, ..Waiting::under(self.cluster.profiles.clone(), state, &self.pool) };
            for (uid, node, key) in places {
                if let Some(pod) = self.waiting_pod(&uid, &key) {
                    self.assume(&pod, &node);
                }
            }
            for (uid, node, key) in nominations {
                if let Some(pod) = self.waiting_pod(&uid, &key) {
                    self.hold(&pod, &node);
                }
            }
            return;
        }
        for event in state.events(from) {
            let hope = self.apply(event);
            self.queue.happened(hope);
        }
        self.state = state;
    }

    fn apply(&mut self, event: &Event) -> Hope {
        if let Some(change) = self.pods.apply(event) {
            return self.pod_changed(&change);
        }
        if let Some(Change { old, new, .. }) = self.nodes.apply(event) {
            let node = new.as_ref().or(old.as_ref());
            return node.map_or(Hope::NONE, |node| self.cluster.set_node(node.name(), new.clone()));
        }
        if let Some(Change { old, new, .. }) = self.csi_nodes.apply(event) {
            let limits = new.as_ref().map(|node| node.limits()).unwrap_or_default();
            let node = new.as_ref().or(old.as_ref());
            return node.map_or(Hope::NONE, |node| self.cluster.set_limits(node.metadata.name(), limits));
        }
        if let Some(Change { old, new, .. }) = self.attachments.apply(event) {
            let named = new.as_ref().or(old.as_ref()).map(|attachment| attachment.metadata.name());
            let spec = new.as_ref().map(|attachment| &attachment.spec);
            return named.map_or(Hope::NONE, |name| self.cluster.set_attachment(name, spec));
        }
        if let Some(Change { old, new, .. }) = self.namespaces.apply(event) {
            let named = new.as_ref().or(old.as_ref()).map(|namespace| name(namespace.as_ref()));
            return named
                .map_or(Hope::NONE, |name| self.cluster.set_namespace(name, new.as_deref().map(labels)));
        }
        if let Some(Change { old, new, .. }) = self.runtime_classes.apply(event) {
            let named = new.as_ref().or(old.as_ref()).map(|class| name(class.as_ref()));
            return named.map_or(Hope::NONE, |name| {
                self.cluster.set_runtime_class(name, new.as_deref().and_then(selector))
            });
        }
        if let Some(hope) = self.cluster.storage.apply(event) {
            return hope;
        }
        if self.cluster.devices.apply(event) {
            return Hope::VOLUMES;
        }
        if let Some(Change { old, new, .. }) = self.budgets.apply(event)
            && let Some(budget) = new.as_ref().or(old.as_ref())
        {
            self.cluster.set_budget(namespace(budget), name(budget.as_ref()), new.clone());
        }
        Hope::NONE
    }

    /// The pod of a key that waits and has a uid.
    fn waiting_pod(&self, uid: &Uid, key: &Bytes) -> Option<Arc<Pod>> {
        self.pod(key).filter(|pod| self.waits(pod) && pod.metadata.uid.as_deref() == Some(uid.as_str()))
    }

    fn pod_changed(&mut self, Change { key, old, new }: &Change<Pod>) -> Hope {
        let uid = |pod: &Option<Arc<Pod>>| pod.as_deref().and_then(Uid::of);
        let same = uid(old) == uid(new);
        if !same {
            // Another pod of the same name.
            self.let_go(uid(old));
        }
        let Some(pod) = new else {
            self.queue.remove(key);
            return self.cluster.take(key) | self.cluster.withdraw(key).1;
        };
        if let Some(node) = pod.node() {
            self.queue.remove(key);
            self.let_go(uid(new));
            return self.cluster.place(pod, node);
        }
        if uid(new).is_some_and(|uid| self.assumed.contains_key(&uid)) {
            if !self.waits(pod) {
                self.queue.remove(key);
            }
            return Hope::NONE;
        }
        let hope = self.cluster.take(key);
        if !self.waits(pod) {
            self.queue.remove(key);
            self.let_go(uid(new));
            return hope | self.cluster.withdraw(key).1;
        }
        if uid(new).is_some_and(|uid| self.preempting.contains_key(&uid)) {
            return hope;
        }
        // A new condition on a pod without a place, this scheduler's own above all, doesn't find it one.
        let told = old.as_ref().filter(|old| same && self.waits(old)).is_some_and(|old| asks_alike(old, pod));
        if !told {
            self.queue.add(key.clone(), pod);
        }
        hope | self.cluster.nominate(pod, nominated(pod))
    }

    /// What was on its way for a pod makes no difference any more.
    fn let_go(&mut self, uid: Option<Uid>) {
        if let Some(uid) = uid {
            self.assumes_no_more(&uid);
            self.preempting.remove(&uid);
        }
    }

    /// Decides on at most `most` of the waiting pods that no bind is on its way for: by priority, then by age. What is
    /// decided for one counts for those after it.
    pub fn decide(&mut self, silence: &Silence, most: usize, now: Instant) -> Vec<Decision> {
        self.hear(silence);
        let mut decisions = Vec::new();
        while decisions.len() < most
            && let Some(key) = self.queue.pop(now)
        {
            let Some(pod) = self.pod(&key) else {
                self.queue.remove(&key);
                continue;
            };
            let place = self.cluster.schedule(&pod);
            let mut preempts = false;
            let before = match &place {
                Ok(node) => self.assume(&pod, node),
                Err(why) => {
                    preempts = self.has_no_place(&pod, why, now);
                    Some(self.cluster.devices.give_back(&pod, why)).filter(|writes| !writes.is_empty())
                }
            };
            decisions.push(Decision { pod, place, before, preempts });
        }
        decisions
    }

    /// There is no place for a pod. True if others are to go for it now.
    fn has_no_place(&mut self, pod: &Arc<Pod>, why: &Unschedulable, now: Instant) -> bool {
        let key = key(pod);
        let hope = match &why.preemption {
            Preemption::Possible(Victims { node, pods, displaced }) => {
                // They look for another place at once: waiting for what may never come helps them little.
                for other in displaced {
                    self.cluster.nominate(other, None);
                    self.queue.wake_now(&crate::cluster::key(other));
                }
                if !pods.iter().all(|victim| is_leaving(victim)) {
                    self.hold(pod, node);
                    return true;
                }
                self.cluster.nominate(pod, Some(node))
            }
            Preemption::Refused(_) => self.cluster.nominate(pod, None),
            Preemption::UnderWay(_) | Preemption::Pointless => Hope::NONE,
        };
        self.queue.rest(&key, why.hope, now);
        self.queue.happened(hope);
        false
    }

    /// Keeps a pod back that others are being told to go for, with its nomination.
    fn hold(&mut self, pod: &Arc<Pod>, node: &str) {
        self.queue.remove(&key(pod));
        let hope = self.cluster.nominate(pod, Some(node));
        self.queue.happened(hope);
        if let Some(uid) = Uid::of(&**pod) {
            self.preempting.insert(uid, key(pod));
        }
    }

    /// Counts a pod as placed, and its volumes as its own. What is to be written before it is bound.
    fn assume(&mut self, pod: &Arc<Pod>, node: &str) -> Option<Vec<Write>> {
        self.queue.remove(&key(pod));
        let before = self.cluster.promise(pod, node);
        let hope = self.cluster.place(pod, node);
        self.queue.happened(hope);
        if let Some(uid) = Uid::of(&**pod) {
            self.assumed.insert(uid, key(pod));
        }
        before
    }

    /// A pod counts as placed no longer, or the state says so by now.
    fn assumes_no_more(&mut self, uid: &Uid) -> Option<Bytes> {
        let key = self.assumed.remove(uid)?;
        let hope = self.cluster.release(&key);
        self.queue.happened(hope);
        Some(key)
    }

    /// The pod that is to be evicted now, so that the replicas of its workload lie evenly again after a host came back.
    pub fn rebalance(&mut self, now: Instant) -> Option<Arc<Pod>> {
        self.rebalance.returned(self.cluster.take_returned(), now);
        // A pod that waits for a place goes first.
        if self.is_ready() { None } else { self.rebalance.decide(&mut self.cluster, now) }
    }

    /// When [`Waiting::rebalance`] is to be asked again, if nothing changes.
    pub fn next_rebalance(&self) -> Option<Instant> {
        if self.is_ready() { None } else { self.rebalance.next_time() }
    }

    /// Another member leads.
    pub fn stand_by(&mut self, now: Instant) {
        self.rebalance.returned(self.cluster.take_returned(), now);
        self.rebalance.stand_by(now);
    }

    /// This member leads from now on: nothing is on its way, and hosts are silent or not as they were for the one that led.
    pub fn take_over(&mut self, silence: &Silence, now: Instant) {
        self.forget_all();
        self.stand_by(now);
        self.hear(silence);
        self.cluster.take_returned();
    }

    fn hear(&mut self, silence: &Silence) {
        let hope = self.cluster.set_silent(silence.keys());
        self.queue.happened(hope);
    }

    /// How many pods wait, those with a bind on its way among them.
    pub fn len(&self) -> usize {
        self.queue.len() + self.assumed.len() + self.preempting.len()
    }

    /// How many of them wait for what; those with a bind on its way do for nothing here.
    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a pod to be decided on.
    pub fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    /// When a pod without a place is to be tried again, if something happened that may help it.
    pub fn next_time(&self) -> Option<Instant> {
        self.queue.next_time()
    }

    /// A bind failed, or others were told to go for the pod: it waits again.
    pub fn forget(&mut self, uid: &Uid) {
        if let Some(key) = self.preempting.remove(uid) {
            if let Some(pod) = self.pod(&key).filter(|pod| self.waits(pod)) {
                self.queue.add(key, &pod);
            }
            return;
        }
        let Some(key) = self.assumes_no_more(uid) else { return };
        if let Some(pod) = self.pod(&key).filter(|pod| pod.node().is_none()) {
            let hope = self.cluster.take(&key);
            self.queue.happened(hope);
            if self.waits(&pod) {
                self.queue.add(key, &pod);
            }
        }
    }

    fn forget_all(&mut self) {
        let all: Vec<Uid> = self.assumed.keys().chain(self.preempting.keys()).cloned().collect();
        all.iter().for_each(|uid| self.forget(uid));
    }

    fn waits(&self, pod: &Pod) -> bool {
        waits(pod, &self.cluster.profiles)
    }

    fn pod(&self, key: &Bytes) -> Option<Arc<Pod>> {
        let place = objects::parse(key)?;
        self.pods.get(place.namespace, place.name).cloned()
    }
}

/// Whether a pod that waits still asks for what it asked for, in the same order of turns.
fn asks_alike(old: &Pod, new: &Pod) -> bool {
    let made = |pod: &Pod| {
        pod.status.as_ref().map(|status| status.resource_claim_statuses.clone()).unwrap_or_default()
    };
    old.metadata.labels == new.metadata.labels
        && made(old) == made(new)
        && matches!((&old.spec, &new.spec), (Some(old), Some(new)) if asks_the_same(old, new))
}

/// The node that a pod is nominated for.
fn nominated(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref())
}

/// Whether this scheduler is to place the pod, now.
fn waits(pod: &Pod, profiles: &Profiles) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = profiles.of(pod).is_some();
    let gated = spec.scheduling_gates.iter().flatten().next().is_some();
    ours && !gated && pod.node().is_none() && !is_finished(pod) && !is_leaving(pod)
}

fn name<T: Metadata<Ty: Meta>>(object: &T) -> &str {
    object.metadata().name()
}

fn namespace(budget: &PodDisruptionBudget) -> &str {
    budget.metadata.namespace.as_deref().unwrap_or_default()
}

fn labels(namespace: &Namespace) -> Labels {
    namespace.metadata.labels.clone().unwrap_or_default()
}

fn selector(class: &RuntimeClass) -> Option<Labels> {
    class.scheduling.as_ref()?.node_selector.clone()
}
