//! All nodes with the pods on them, kept as they change, and the decision on one pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use objects::{Labels, Meta, Pod, Write};

use crate::attachments::{Attached, Limits};
use crate::class::{Class, Classes};
use crate::device_claims::DeviceClaims;
use crate::filter;
use crate::host_row::{HostRow, Nominee};
use crate::ledger::Ledger;
use crate::node::Node;
use crate::preemption::{Budgets, NOT_HELPFUL, Preemptor};
use crate::profile::Profiles;
use crate::storage::{Need, Refusal, Storage};
use crate::unschedulable::{Hope, Preemption, Unschedulable};
use crate::wish::{Wish, asks_the_same, priority};

/// The labels of every namespace.
pub(crate) type Namespaces = BTreeMap<String, Labels>;

/// Figures of one host for one wish are some 300 bytes: this bounds what all of them take to some 60 MB, and keeps forty
/// different wishes for 5,000 hosts.
const MOST_FIGURES: usize = 200_000;
/// A pod is compared with as many wishes to find its own.
const MOST_WISHES: usize = 256;

/// All nodes with their pods, and what else a placement depends on. What changes it answers whom that may help.
///
/// A host's number is its place in `hosts`, and is used again once the host is empty (`free`). `changes` holds every
/// number once, under the host's last change in `versions`. A ledger's figures are right for every host whose last
/// change is no later than the ledger's `seen`: so every change of a row must be followed by `touch`.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) hosts: Vec<HostRow>,
    by_name: HashMap<String, usize>,
    free: Vec<usize>,
    silent: BTreeSet<String>,
    /// How many changes there were to hosts.
    clock: u64,
    /// By the host's number: its last change.
    versions: Vec<u64>,
    /// Each host under its last change.
    changes: BTreeMap<u64, usize>,
    pub(crate) placed: HashMap<Bytes, Placed>,
    /// How many placed pods there are of each priority.
    pub(crate) priorities: BTreeMap<i32, usize>,
    /// The hosts that pods without a place are nominated for.
    nominations: HashMap<Bytes, usize>,
    classes: Classes,
    pub(crate) namespaces: Namespaces,
    runtime_classes: BTreeMap<String, Labels>,
    pub(crate) budgets: Budgets,
    pub(crate) storage: Storage,
    pub(crate) devices: DeviceClaims,
    pub(crate) profiles: Profiles,
    pub(crate) ledgers: Vec<Ledger>,
    /// How many decisions there were.
    pub(crate) decisions: u64,
    /// The hosts that came back since somebody asked.
    pub(crate) returned: BTreeSet<String>,
}

/// A pod that has its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pod: Arc<Pod>,
    pub class: Arc<Class>,
    /// Its volumes of CSI drivers.
    pub attached: Vec<Attached>,
    host: usize,
}

impl Cluster {
    /// A cluster without nodes, whose pods are placed by these profiles.
    pub fn new(profiles: Profiles) -> Self {
        Cluster { profiles, ..Cluster::default() }
    }

    /// What a node is now; nothing if it is gone. Pods on it stay counted for the case that it comes back.
    pub fn set_node(&mut self, name: &str, node: Option<Arc<Node>>) -> Hope {
        if node.is_none() && !self.by_name.contains_key(name) {
            return Hope::NONE;
        }
        let at = self.host(name);
        if let (Some(old), Some(new)) = (&self.hosts[at].node, &node)
            && old.takes_the_same(new)
        {
            // Which images are there only says which of the nodes that can have a pod is the better one.
            let same_images = old.status.images == new.status.images;
            self.hosts[at].node = node;
            if !same_images {
                self.touch(at);
            }
            return Hope::NONE;
        }
        let before = filter::takes_pods(&self.hosts[at]);
        self.hosts[at].set_node(node);
        if !before && filter::takes_pods(&self.hosts[at]) {
            self.returned.insert(name.to_owned());
        }
        self.touch(at);
        // After the touch: ledgers have figures of this row still, and its number may become another host's.
        self.drop_if_empty(at);
        // A node that goes takes its pods out of the counts that others look at.
        Hope::ALL
    }

    /// How many volumes can be attached to a node.
    pub(crate) fn set_limits(&mut self, name: &str, limits: Limits) -> Hope {
        if limits.is_empty() && !self.by_name.contains_key(name) {
            return Hope::NONE;
        }
        let at = self.host(name);
        if self.hosts[at].attachments.limits == limits {
            return Hope::NONE;
        }
        self.hosts[at].attachments.limits = limits;
        self.touch(at);
        self.drop_if_empty(at);
        Hope::NODES
    }

    /// Which hosts are not heard from.
    pub fn set_silent<'a>(&mut self, silent: impl Iterator<Item = &'a String>) -> Hope {
        let silent: BTreeSet<String> = silent.cloned().collect();
        let changed: Vec<String> = silent.symmetric_difference(&self.silent).cloned().collect();
        self.silent = silent;
        for name in &changed {
            if let Some(at) = self.by_name.get(name).copied() {
                let before = filter::takes_pods(&self.hosts[at]);
                self.hosts[at].silent = self.silent.contains(name);
                if !before && filter::takes_pods(&self.hosts[at]) {
                    self.returned.insert(name.clone());
                }
                self.touch(at);
            }
        }
        if changed.is_empty() { Hope::NONE } else { Hope::ALL }
    }

    /// The labels of a namespace; nothing if it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> Hope {
        self.replace_labels(|cluster| &mut cluster.namespaces, name, labels)
    }

    /// A disruption budget; nothing if it is gone.
    pub fn set_budget(&mut self, namespace: &str, name: &str, budget: Option<Arc<PodDisruptionBudget>>) {
        self.budgets.set(namespace, name, budget);
    }

    /// The node selector of a RuntimeClass, if it has one.
    pub fn set_runtime_class(&mut self, name: &str, selector: Option<Labels>) -> Hope {
        self.replace_labels(|cluster| &mut cluster.runtime_classes, name, selector)
    }

    fn replace_labels(
        &mut self,
        of: fn(&mut Cluster) -> &mut BTreeMap<String, Labels>,
        name: &str,
        labels: Option<Labels>,
    ) -> Hope {
        if of(self).get(name) == labels.as_ref() {
            return Hope::NONE;
        }
        match labels {
            Some(labels) => of(self).insert(name.to_owned(), labels),
            None => of(self).remove(name),
        };
        // Any rule may mean other pods or nodes than before.
        self.ledgers.clear();
        Hope::ALL
    }

    /// Puts a pod on a node, or takes in what has become of it; one that has ended is taken away.
    pub fn place(&mut self, pod: &Arc<Pod>, node: &str) -> Hope {
        let key = key(pod);
        if is_finished(pod) {
            return self.take(&key);
        }
        if let Some(placed) = self.placed.get_mut(&key)
            && *self.hosts[placed.host].name == *node
            && counts_the_same(&placed.pod, pod)
        {
            self.hosts[placed.host].replace(&placed.pod, pod);
            placed.pod = pod.clone();
            return Hope::NONE;
        }
        let hope = self.take(&key) | self.withdraw(&key).1 | Hope::COMPANY;
        let (at, class) = (self.host(node), self.classes.of(pod));
        let attached = self.storage.attached(pod);
        self.hosts[at].add(pod, &class, &attached);
        *self.priorities.entry(priority(pod)).or_default() += 1;
        self.touch(at);
        self.storage.placed(&key, pod);
        self.placed.insert(key, Placed { pod: pod.clone(), class, attached, host: at });
        hope
    }

    /// Takes a pod away from its node.
    pub fn remove(&mut self, pod: &Pod) -> Hope {
        self.take(&key(pod))
    }

    pub(crate) fn take(&mut self, key: &Bytes) -> Hope {
        let Some(Placed { pod, class, attached, host }) = self.placed.remove(key) else { return Hope::NONE };
        self.hosts[host].remove(&pod, &class, &attached);
        self.storage.gone(key, &pod);
        if let Some(count) = self.priorities.get_mut(&priority(&pod)) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&priority(&pod));
            }
        }
        self.touch(host);
        self.drop_if_empty(host);
        // With fewer pods in one domain, others may have too many; a spread may also be even again.
        Hope::ROOM
    }

    /// The class of a pod that has its place.
    pub(crate) fn class_of(&self, pod: &Pod) -> Option<&Class> {
        self.placed.get(&key(pod)).map(|placed| &*placed.class)
    }

    /// How many pods of a workload are on a node.
    pub(crate) fn siblings(&self, node: &str, workload: &Class) -> Option<u32> {
        let classes = &self.hosts[*self.by_name.get(node)?].classes;
        Some(classes.iter().filter(|(class, _)| workload.is_sibling(class)).map(|(_, count)| count).sum())
    }

    /// The name of the node that the pod of a key is on.
    pub(crate) fn node_of(&self, key: &Bytes) -> Option<String> {
        self.placed.get(key).map(|placed| self.hosts[placed.host].name.to_string())
    }

    /// Says for which node a pod without a place is nominated, if for any: there it counts for pods of no higher priority.
    pub fn nominate(&mut self, pod: &Arc<Pod>, node: Option<&str>) -> Hope {
        if node.is_none() && self.nominations.is_empty() {
            return Hope::NONE;
        }
        let key = key(pod);
        let before = self.nominations.get(&key).map(|at| &*self.hosts[*at].name);
        if before == node {
            return Hope::NONE;
        }
        let hope = self.withdraw(&key).1;
        if let Some(node) = node {
            let (at, class) = (self.host(node), self.classes.of(pod));
            let attached = self.storage.attached(pod);
            self.hosts[at].nominees.push(Nominee::new(key.clone(), pod.clone(), class, attached));
            self.nominations.insert(key, at);
            self.touch(at);
        }
        hope
    }

    /// Takes a nomination back; the name of the node.
    pub(crate) fn withdraw(&mut self, key: &Bytes) -> (Option<Arc<str>>, Hope) {
        if self.nominations.is_empty() {
            return (None, Hope::NONE);
        }
        let Some(at) = self.nominations.remove(key) else { return (None, Hope::NONE) };
        let name = self.hosts[at].name.clone();
        self.hosts[at].nominees.retain(|nominee| nominee.key != *key);
        self.touch(at);
        self.drop_if_empty(at);
        (Some(name), Hope::ROOM)
    }

    /// The name of the node that the pod of a key is nominated for.
    pub(crate) fn nominated_node(&self, key: &Bytes) -> Option<String> {
        self.nominations.get(key).map(|at| self.hosts[*at].name.to_string())
    }

    /// The node for a pod.
    ///
    /// A pod that is nominated for a node gets that one if it can. Otherwise nodes that can't have it are left out; of the others
    /// the best has, in this order: the fewest taints that discourage it, what the pod prefers, the fewest pods in the domains of
    /// constraints that need not be kept (`ScheduleAnyway`), the fewest pods like this one (so that three replicas are on three
    /// hosts whenever three can have one), the fewest of them in its zone, what other pods would like, the most room left (with how evenly it is used, and
    /// how much of the pod's images is there), the fewest pods, the first name.
    ///
    /// # Errors
    /// [`Unschedulable`] if no node can have it; it says whether others may go for it.
    pub fn schedule(&mut self, pod: &Arc<Pod>) -> Result<String, Arc<Unschedulable>> {
        self.decisions += 1;
        let need = self.storage.need(pod).and_then(|mut need| {
            need.devices = self.devices.need(pod)?;
            Ok(need)
        });
        let need = match need {
            Ok(need) => need,
            Err(refusal) => return Err(Arc::new(self.refused(refusal))),
        };
        let at = self.ledger(pod, need);
        // Its own nomination takes no room from it.
        let nominated = if self.nominations.is_empty() { None } else { self.withdraw(&key(pod)).0 };
        let place = self.decide(pod, at, nominated.as_deref());
        // Asking changes nothing: it ends when the pod is placed.
        if nominated.is_some() {
            self.nominate(pod, nominated.as_deref());
        }
        place
    }

    /// A pod's own claims keep it from every node.
    fn refused(&self, refusal: Refusal) -> Unschedulable {
        let nodes = self.hosts.iter().filter(|host| host.open().is_some()).count();
        let mut why = Unschedulable { nodes, hope: Hope::VOLUMES, ..Unschedulable::default() };
        match refusal {
            Refusal::Pod(text) => why.own = Some(text),
            Refusal::EachNode(text) => {
                why.hope = why.hope | Hope::ROOM;
                why.reasons.insert(text.to_owned(), nodes);
            }
        }
        if nodes > 0 {
            why.preemption =
                Preemption::Refused(format!("0/{nodes} nodes are available: {nodes} {NOT_HELPFUL}."));
        }
        why
    }

    /// What has to be written and waited for before a pod is bound to the node that was found for it; nothing if it can be bound
    /// at once. What its claims get is promised to them.
    pub(crate) fn promise(&mut self, pod: &Pod, node: &str) -> Option<Vec<Write>> {
        let node = self.by_name.get(node).and_then(|at| self.hosts[*at].node.as_deref())?;
        let devices = self.devices.promise(pod, node);
        match (devices, self.storage.promise(pod, node)) {
            (Some(devices), Some(volumes)) => Some(devices.into_iter().chain(volumes).collect()),
            (devices, volumes) => devices.or(volumes),
        }
    }

    /// What was promised to a pod's claims is shown by the state, or they get none of it.
    pub(crate) fn release(&mut self, pod: &Bytes) -> Hope {
        let gave_back = self.devices.release(pod);
        self.storage.release(pod) | if gave_back { Hope::VOLUMES } else { Hope::NONE }
    }

    fn decide(
        &mut self,
        pod: &Arc<Pod>,
        at: usize,
        nominated: Option<&str>,
    ) -> Result<String, Arc<Unschedulable>> {
        let ledger = &mut self.ledgers[at];
        ledger.used = self.decisions;
        // Nothing has changed since it failed, so it would fail again: a thousand replicas without a place cost one
        // decision.
        if let Some((when, why)) = &ledger.failed
            && *when == self.clock
        {
            return Err(why.clone());
        }
        for (_, host) in self.changes.range(ledger.seen.saturating_add(1)..) {
            ledger.update(*host, &self.hosts, &self.namespaces);
        }
        ledger.seen = self.clock;
        let nominated = nominated.and_then(|name| self.by_name.get(name)).copied();
        let place = nominated.filter(|host| ledger.is_open(*host)).or_else(|| ledger.best());
        if let Some(host) = place {
            return Ok(self.hosts[host].name.to_string());
        }
        let (mut why, helpable) = ledger.reasons(&self.hosts);
        if why.nodes > 0 && self.ledgers[at].wish.profile.preempts {
            let (helpable, nodes) = (&*helpable, why.nodes);
            why.preemption = self.preempt(&Preemptor { pod, ledger: at, nominated, helpable, nodes });
        }
        let why = Arc::new(why);
        // Who goes for one pod doesn't go for the next one too.
        if nominated.is_none() && !matches!(why.preemption, Preemption::Possible(_)) {
            self.ledgers[at].failed = Some((self.clock, why.clone()));
        }
        Err(why)
    }

    /// The number of the ledger for what a pod asks for.
    fn ledger(&mut self, pod: &Arc<Pod>, need: Need) -> usize {
        let class = self.classes.of(pod);
        let profile = self.profiles.of(pod).unwrap_or(self.profiles.first()).clone();
        let is_of = |ledger: &Ledger| ledger.wish.is_of(pod, &class, &need, &profile);
        if let Some(at) = self.ledgers.iter().position(is_of) {
            if !self.ledgers[at].is_worn() {
                return at;
            }
            self.ledgers.swap_remove(at);
        }
        let most = (MOST_FIGURES / self.hosts.len().max(1)).clamp(4, MOST_WISHES);
        while self.ledgers.len() >= most {
            let oldest = self.ledgers.iter().enumerate().min_by_key(|(_, ledger)| ledger.used);
            let Some((oldest, _)) = oldest else { break };
            self.ledgers.swap_remove(oldest);
        }
        let runtime = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_ref());
        let runtime = runtime.and_then(|name| self.runtime_classes.get(name)).cloned();
        self.ledgers.push(Ledger::new(Wish::of(pod, class, runtime, need, profile, &self.namespaces)));
        self.ledgers.len() - 1
    }

    /// The number of the host of a name, which is made if there is none.
    pub(crate) fn host(&mut self, name: &str) -> usize {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        let mut host = HostRow::new(name);
        host.silent = self.silent.contains(name);
        let at = match self.free.pop() {
            Some(at) => {
                self.hosts[at] = host;
                at
            }
            None => {
                self.hosts.push(host);
                self.versions.push(0);
                self.hosts.len() - 1
            }
        };
        self.by_name.insert(name.to_owned(), at);
        at
    }

    pub(crate) fn drop_if_empty(&mut self, at: usize) {
        if self.hosts[at].is_empty() {
            self.by_name.remove(&*self.hosts[at].name);
            self.free.push(at);
        }
    }

    pub(crate) fn touch(&mut self, at: usize) {
        self.changes.remove(&self.versions[at]);
        self.clock += 1;
        self.versions[at] = self.clock;
        self.changes.insert(self.clock, at);
    }
}

/// Whether a pod means the same for others as it did before: a report of its status, which most changes are, makes no row stale.
fn counts_the_same(old: &Pod, new: &Pod) -> bool {
    is_leaving(old) == is_leaving(new)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
        && match (old.taken(), new.taken()) {
            (Some(old), Some(new)) => asks_the_same(old, new),
            (old, new) => old.is_none() && new.is_none(),
        }
}

/// The store's key of a pod.
pub(crate) fn key(pod: &Pod) -> Bytes {
    objects::key("", "pods", pod.metadata.namespace(), pod.metadata.name()).into()
}

/// Whether a pod has ended and needs nothing any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod is on its way out.
pub(crate) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests;
