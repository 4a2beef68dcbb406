//! The pods of each ReplicaSet and ReplicationController, counted change by change: what a status says of ten thousand pods is known without
//! walking them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Meta, Pod, Uid};

use crate::pods;
use crate::selectors::Labels;
use crate::tables::Index;
use crate::view::controller_of;

/// The pods of each ReplicaSet, counted.
#[derive(Default)]
pub(crate) struct Replicas {
    /// By namespace and uid: a pod that names a set of another namespace is none of its.
    sets: HashMap<(String, Uid), HashMap<Arc<Labels>, Count>>,
}

/// How many pods there are, and how many of them are what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Count {
    /// All of them.
    all: usize,
    /// Those that count: neither finished nor being deleted.
    pub active: usize,
    /// Those that are being deleted and have not ended.
    pub terminating: usize,
    /// Those of the active ones that serve.
    pub ready: usize,
    /// How many of these serve since when; those that don't say so are left out.
    since: BTreeMap<Timestamp, usize>,
}

impl Replicas {
    /// The counts of the pods whose controller is the ReplicaSet of this uid, by their labels: pods of one template
    /// have the same.
    pub fn of(&self, namespace: &str, uid: &str) -> impl Iterator<Item = (&Labels, &Count)> {
        let counts = self.sets.get(&(namespace.to_owned(), uid.into())).into_iter().flatten();
        counts.map(|(labels, count)| (&**labels, count))
    }

    /// The counts of all of them together.
    pub fn total(&self, namespace: &str, uid: &str) -> Count {
        let mut total = Count::default();
        self.of(namespace, uid).for_each(|(_, count)| total.add(count));
        total
    }
}

impl Index for Replicas {
    type Of = Pod;

    fn take(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let Some((set, pod)) = old.and_then(|pod| Some((set_of(pod)?, pod)))
            && let Some(counts) = self.sets.get_mut(&set)
        {
            let labels = labels(pod);
            if let Some(count) = counts.get_mut(labels) {
                count.forget(pod);
                if count.all == 0 {
                    counts.remove(labels);
                }
            }
            if counts.is_empty() {
                self.sets.remove(&set);
            }
        }
        if let Some((set, pod)) = new.and_then(|pod| Some((set_of(pod)?, pod))) {
            let counts = self.sets.entry(set).or_default();
            counts.entry(pod.metadata.labels.clone().unwrap_or_default()).or_default().count(pod);
        }
    }
}

fn labels(pod: &Pod) -> &Labels {
    static NONE: Labels = BTreeMap::new();
    pod.metadata.labels.as_deref().unwrap_or(&NONE)
}

/// Namespace and uid of the set that a pod belongs to.
fn set_of(pod: &Pod) -> Option<(String, Uid)> {
    let is_set =
        |owner: &&OwnerReference| ["ReplicaSet", "ReplicationController"].contains(&owner.kind.as_str());
    let owner = controller_of(&pod.metadata).filter(is_set)?;
    Some((pod.metadata.namespace().to_owned(), owner.uid.as_str().into()))
}

impl Count {
    /// Counts a pod.
    pub fn count(&mut self, pod: &Pod) {
        self.all += 1;
        if pods::is_active(pod) {
            self.active += 1;
            if pods::is_ready(pod) {
                self.ready += 1;
                pods::ready_since(pod).into_iter().for_each(|at| *self.since.entry(at).or_default() += 1);
            }
        } else if !pods::is_finished(pod) {
            self.terminating += 1;
        }
    }

    /// Takes back that a pod was counted.
    fn forget(&mut self, pod: &Pod) {
        self.all -= 1;
        if pods::is_active(pod) {
            self.active -= 1;
            if pods::is_ready(pod) {
                self.ready -= 1;
                if let Some(at) = pods::ready_since(pod)
                    && let Some(count) = self.since.get_mut(&at)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.since.remove(&at);
                    }
                }
            }
        } else if !pods::is_finished(pod) {
            self.terminating -= 1;
        }
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: &Count) {
        self.all += other.all;
        self.active += other.active;
        self.terminating += other.terminating;
        self.ready += other.ready;
        other.since.iter().for_each(|(at, count)| *self.since.entry(*at).or_default() += count);
    }

    /// How many have served for `minimum`, and how long until the next one has.
    pub fn available(&self, minimum: Duration, now: Timestamp) -> (usize, Option<Duration>) {
        if minimum.is_zero() {
            return (self.ready, None);
        }
        let (mut available, mut next) = (0, None);
        for (since, count) in &self.since {
            // A clock that was ahead: the pod has served for no time yet.
            let served = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
            match minimum.checked_sub(served).filter(|left| !left.is_zero()) {
                None => available += count,
                Some(left) => {
                    next = Some(left);
                    break;
                }
            }
        }
        (available, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(
        name: usize,
        owner: &str,
        label: &str,
        ready: Option<i64>,
        phase: &str,
        deleting: bool,
    ) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {
                "name": format!("p{name}"), "namespace": "d", "labels": {"l": label},
                "ownerReferences":
                    [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}],
            },
            "spec": {"containers": []},
            "status": {"phase": phase},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if let Some(seconds) = ready {
            let since = Timestamp::from_second(seconds).unwrap().to_string();
            pod["status"]["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    proptest! {
        #[test]
        fn kept_counts_are_those_that_a_walk_over_all_pods_finds(
            changes in prop::collection::vec(
                (
                    0..8usize,
                    prop::option::of((
                        prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "y"]),
                        prop::option::of(0..50i64), prop::sample::select(vec!["Running", "Failed"]), any::<bool>(),
                    )),
                ),
                0..60,
            ),
            minimum in 0..30u64,
        ) {
            let now = Timestamp::from_second(40).unwrap();
            let minimum = Duration::from_secs(minimum);
            let mut kept = Replicas::default();
            let mut all: BTreeMap<usize, Arc<Pod>> = BTreeMap::new();
            for (name, new) in changes {
                let new = new.map(|(owner, label, ready, phase, deleting)| {
                    pod(name, owner, label, ready, phase, deleting)
                });
                let old = match &new {
                    Some(new) => all.insert(name, new.clone()),
                    None => all.remove(&name),
                };
                kept.take(old.as_ref(), new.as_ref());
            }
            for owner in ["a", "b"] {
                let own: Vec<_> =
                    all.values().filter(|pod| controller_of(&pod.metadata).unwrap().uid == owner).collect();
                let total = kept.total("d", owner);
                let active: Vec<_> = own.iter().filter(|pod| pods::is_active(pod)).collect();
                prop_assert_eq!(total.active, active.len());
                prop_assert_eq!(total.all, own.len());
                let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
                prop_assert_eq!(total.ready, ready);
                let left = active.iter().filter_map(|pod| pods::available_in(pod, minimum, now));
                let available = left.clone().filter(Duration::is_zero).count();
                let next = left.filter(|left| !left.is_zero()).min();
                prop_assert_eq!(total.available(minimum, now), (available, next));
                prop_assert!(kept.of("d", owner).all(|(_, count)| count.all > 0), "no empty groups");
            }
            if all.is_empty() {
                prop_assert!(kept.sets.is_empty());
            }
        }
    }
}
