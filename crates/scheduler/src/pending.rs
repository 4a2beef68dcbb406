//! The pods that wait for a node, and the state that they wait in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::node::v1::RuntimeClass;
use objects::{Pod, Pool, Table};
use store::State;

use crate::cluster::{Cluster, Host, is_finished, is_leaving, node_name};
use crate::schedule::{Unschedulable, schedule};

/// Hosts that are silent, each with the time when it was last heard.
pub type Silence = BTreeMap<String, Instant>;

/// What the scheduler looks at: one revision of the state, and its own placements that are on their way.
#[derive(Debug)]
pub struct Waiting {
    state: Arc<State>,
    nodes: Table<Node>,
    pods: Table<Pod>,
    pool: Pool<Pod>,
    namespaces: Table<Namespace>,
    runtime_classes: Table<RuntimeClass>,
    waiting: BTreeSet<Bytes>,
    /// The uid of each pod that a bind is on its way for, with its node.
    assumed: HashMap<String, String>,
}

/// What was decided about one pod.
#[derive(Debug)]
pub struct Decision {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its node, or why it has none.
    pub place: Result<String, Unschedulable>,
}

impl Waiting {
    /// What waits in a state, with pods of a pool.
    pub fn load(state: Arc<State>, pool: &Pool<Pod>) -> Self {
        let pods: Table<Pod> = Table::load_shared(&state, pool);
        let waiting = pods.iter().filter(|pod| waits(pod)).map(|pod| key(pod)).collect();
        Waiting {
            nodes: Table::load(&state),
            namespaces: Table::load(&state),
            runtime_classes: Table::load(&state),
            pods,
            pool: pool.clone(),
            waiting,
            assumed: HashMap::new(),
            state,
        }
    }

    /// The state that this is about.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Moves on to a newer state. True if something changed that may give a waiting pod its place.
    pub fn advance(&mut self, state: Arc<State>) -> bool {
        let from = self.state.revision() + 1;
        if state.revision() < from {
            return false;
        }
        if state.check_history(from).is_err() {
            let assumed = std::mem::take(&mut self.assumed);
            *self = Waiting::load(state, &self.pool);
            self.assumed = assumed;
            return true;
        }
        let mut relevant = false;
        for event in state.events(from) {
            if let Some(change) = self.pods.apply(event) {
                relevant = true;
                for pod in [&change.old, &change.new].into_iter().flatten() {
                    self.waiting.remove(&key(pod));
                }
                match &change.new {
                    Some(pod) if waits(pod) => {
                        self.waiting.insert(key(pod));
                    }
                    _ => {
                        let old = change.old.as_ref().and_then(|pod| pod.metadata.uid.as_ref());
                        old.and_then(|uid| self.assumed.remove(uid));
                    }
                }
            } else {
                relevant |= self.nodes.apply(event).is_some()
                    || self.namespaces.apply(event).is_some()
                    || self.runtime_classes.apply(event).is_some();
            }
        }
        self.state = state;
        relevant
    }

    /// Decides on every waiting pod that no bind is on its way for: by priority, then by age. What is
    /// decided for one counts for those after it.
    pub fn decide(&mut self, silence: &Silence) -> Vec<Decision> {
        let mut queue: Vec<Arc<Pod>> = self.waiting.iter().filter_map(|key| self.pod(key)).collect();
        queue.retain(|pod| pod.metadata.uid.as_ref().is_none_or(|uid| !self.assumed.contains_key(uid)));
        if queue.is_empty() {
            return Vec::new();
        }
        queue.sort_by_key(|pod| {
            let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            (Reverse(priority), pod.metadata.creation_timestamp.clone(), key(pod))
        });
        let mut cluster = self.cluster(silence);
        let mut decisions = Vec::with_capacity(queue.len());
        for pod in queue {
            let place = schedule(&cluster, &pod);
            if let Ok(node) = &place {
                cluster.place(&pod, node);
                if let Some(uid) = &pod.metadata.uid {
                    self.assumed.insert(uid.clone(), node.clone());
                }
            }
            decisions.push(Decision { pod, place });
        }
        decisions
    }

    /// How many pods wait, those with a bind on its way among them.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A bind failed: the pod waits again.
    pub fn forget(&mut self, uid: &str) {
        self.assumed.remove(uid);
    }

    /// No bind is on its way.
    pub fn forget_all(&mut self) {
        self.assumed.clear();
    }

    fn pod(&self, key: &Bytes) -> Option<Arc<Pod>> {
        let place = objects::parse(key)?;
        self.pods.get(place.namespace, place.name).cloned()
    }

    fn cluster(&self, silence: &Silence) -> Cluster {
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        let mut cluster = Cluster::default();
        for node in self.nodes.iter().filter(|node| node.metadata.deletion_timestamp.is_none()) {
            let silent = silence.contains_key(&name(node));
            cluster.hosts.insert(name(node), Host::new(node.clone(), silent));
        }
        for pod in self.pods.iter() {
            let assumed = pod.metadata.uid.as_ref().and_then(|uid| self.assumed.get(uid));
            if let Some(node) = node_name(pod).or(assumed.map(String::as_str)) {
                cluster.place(pod, node);
            }
        }
        for namespace in self.namespaces.iter() {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            cluster.namespaces.insert(namespace.metadata.name.clone().unwrap_or_default(), labels);
        }
        for class in self.runtime_classes.iter() {
            if let Some(selector) = class.scheduling.as_ref().and_then(|s| s.node_selector.clone()) {
                cluster.runtime_classes.insert(class.metadata.name.clone().unwrap_or_default(), selector);
            }
        }
        cluster
    }
}

fn key(pod: &Pod) -> Bytes {
    let metadata = &pod.metadata;
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    objects::key("", "pods", namespace.unwrap_or_default(), name.unwrap_or_default()).into()
}

/// Whether this scheduler is to place the pod, now.
fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours =
        spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == "default-scheduler");
    let gated = spec.scheduling_gates.iter().flatten().next().is_some();
    ours && !gated && node_name(pod).is_none() && !is_finished(pod) && !is_leaving(pod)
}
