//! After a host's return: replicas of a workload that crowd on fewer hosts than they could, are evicted one at a time, so that
//! the ones that take their places make the load even again and the next power cut takes fewer of them.
//!
//! Kubernetes leaves that to the descheduler (`RemoveDuplicates`), which looks at everything again and again. Here a
//! host that came back is the reason, and each workload is looked at until it is even.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use objects::{Meta, Pod, REBALANCE};

use crate::class::Class;
use crate::cluster::{Cluster, is_leaving};

/// A host that came back must have been there for this long before pods move to it: one that comes and goes for a moment shall
/// move nobody.
const SETTLED: Duration = Duration::from_secs(60);
/// How long a workload rests after one of its pods went: its replacement has begun to serve by then, or its budget says no.
const REST: Duration = Duration::from_secs(30);
/// Between two pods that go. Looks at workloads cost little; pods that go, cost.
const PACE: Duration = Duration::from_secs(1);

/// When a workload had fewer replicas than before at this many looks, five minutes, it is to have fewer: somebody scaled it, and the
/// rest of it is to lie evenly too.
const SCALED: u32 = 10;

/// Who is to be looked at, and when.
#[derive(Debug, Default)]
pub(crate) struct Rebalance {
    /// When each host that came back has settled, by its name: one that comes and goes all the time puts off what would go to it, and
    /// nothing else.
    settling: BTreeMap<String, Instant>,
    /// Workloads to be looked at, by the time when.
    due: BTreeMap<Instant, VecDeque<Look>>,
}

/// A workload to be looked at.
#[derive(Debug)]
struct Look {
    workload: Arc<Class>,
    /// How many replicas it had when one of them was last told to go: as long as it has fewer, the replacement isn't there, and
    /// whatever keeps that one away (a quota, a webhook) would keep the next one away too.
    replicas: u32,
    /// How often it had fewer since.
    fewer: u32,
}

impl Rebalance {
    /// Hosts came back.
    pub fn returned(&mut self, hosts: impl IntoIterator<Item = String>, now: Instant) {
        self.settling.extend(hosts.into_iter().map(|host| (host, now + SETTLED)));
    }

    /// Another member leads, and looks when it is time.
    pub fn stand_by(&mut self, now: Instant) {
        self.settling.retain(|_, settled| *settled > now);
        self.due.clear();
    }

    /// When to look again, if at all.
    pub fn next_time(&self) -> Option<Instant> {
        self.settling.values().chain(self.due.keys().next()).min().copied()
    }

    /// The pod that is to go now, if one is.
    pub fn decide(&mut self, cluster: &mut Cluster, now: Instant) -> Option<Arc<Pod>> {
        let before = self.settling.len();
        self.settling.retain(|_, settled| *settled > now);
        if self.settling.len() < before {
            self.due.clear();
            let looks =
                cluster.workloads().into_iter().map(|workload| Look { workload, replicas: 0, fewer: 0 });
            let all: VecDeque<Look> = looks.collect();
            if !all.is_empty() {
                self.due.insert(now, all);
            }
        }
        let mut first = self.due.first_entry().filter(|entry| *entry.key() <= now)?;
        let look = first.get_mut().pop_front();
        let rest = first.remove();
        let settling = &self.settling;
        let evenness = look.as_ref().map(|look| cluster.evenness(&look.workload, look.replicas, settling));
        if !rest.is_empty() {
            let goes = matches!(evenness, Some(Evenness::Crowded { .. }));
            let next = if goes { now + PACE } else { now };
            self.due.entry(next).or_default().extend(rest);
        }
        let Look { workload, replicas, fewer } = look?;
        let (replicas, fewer, pod) = match evenness? {
            Evenness::Even => return None,
            Evenness::Fewer if fewer + 1 == SCALED => (0, 0, None),
            Evenness::Fewer => (replicas, fewer + 1, None),
            Evenness::Unknown => (replicas, fewer, None),
            Evenness::Crowded { pod, replicas } => (replicas, 0, Some(pod)),
        };
        self.due.entry(now + REST).or_default().push_back(Look { workload, replicas, fewer });
        pod
    }
}

/// How a workload's replicas lie.
#[derive(Debug)]
pub(crate) enum Evenness {
    /// As evenly as they can, or nobody is to change it.
    Even,
    /// Not all of them serve, or one would go to a host that hasn't settled: it isn't the time to take one away.
    Unknown,
    /// Not as many of them are there as before.
    Fewer,
    /// This one of them may go, and its replacement will be on a host with fewer of them.
    Crowded { pod: Arc<Pod>, replicas: u32 },
}

impl Cluster {
    /// The hosts that came back since this was asked last.
    pub(crate) fn take_returned(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.returned)
    }

    /// One class of each workload with two pods or more on one host. Pods of a StatefulSet are each of a class of their own.
    fn workloads(&self) -> Vec<Arc<Class>> {
        let mut found: BTreeMap<(&str, &str), &Arc<Class>> = BTreeMap::new();
        for host in &self.hosts {
            let mut here: BTreeMap<(&str, &str), u32> = BTreeMap::new();
            for (class, count) in &host.classes {
                let Some(owner) = &class.owner else { continue };
                let workload = (&*class.namespace, owner.as_str());
                let sum = here.entry(workload).or_default();
                *sum += count;
                if *sum > 1 {
                    found.insert(workload, class);
                }
            }
        }
        found.into_values().cloned().collect()
    }

    /// How the replicas of a workload lie, which had `before` of them when one was last told to go, while hosts are settling.
    fn evenness(
        &mut self,
        workload: &Arc<Class>,
        before: u32,
        settling: &BTreeMap<String, Instant>,
    ) -> Evenness {
        let mut crowd: Option<(u32, usize)> = None;
        let mut replicas = 0;
        for (at, host) in self.hosts.iter().enumerate() {
            let own = |class: &Class| workload.is_sibling(class);
            let count: u32 =
                host.classes.iter().filter(|(class, _)| own(class)).map(|(_, count)| count).sum();
            if count > 0 && host.pods.iter().any(|pod| self.is_of(pod, workload) && !is_serving(pod)) {
                return Evenness::Unknown;
            }
            replicas += count;
            if crowd.is_none_or(|(most, _)| count > most) {
                crowd = Some((count, at));
            }
        }
        // It is gone, or a newer one of its kind is there in its place.
        if replicas == 0 {
            return Evenness::Even;
        }
        if replicas < before {
            return Evenness::Fewer;
        }
        let Some((most, at)) = crowd.filter(|(most, _)| *most > 1) else { return Evenness::Even };
        // The newest goes: it has the least to lose.
        let there = self.hosts[at].pods.iter().filter(|pod| self.is_of(pod, workload) && !is_leaving(pod));
        let newest = there.max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        // What another scheduler placed it would place there again.
        let may_move = |pod: &&Arc<Pod>| may_move(pod) && self.profiles.of(pod).is_some();
        let Some(pod) = newest.filter(may_move).cloned() else { return Evenness::Even };
        let Ok(node) = self.schedule(&pod) else { return Evenness::Even };
        if self.siblings(&node, workload).is_none_or(|fewest| fewest + 1 >= most) {
            return Evenness::Even;
        }
        if settling.contains_key(&node) { Evenness::Unknown } else { Evenness::Crowded { pod, replicas } }
    }

    fn is_of(&self, pod: &Arc<Pod>, workload: &Class) -> bool {
        self.class_of(pod).is_some_and(|class| workload.is_sibling(class))
    }
}

/// Whether a pod does its work; one on its way out is as good as gone.
fn is_serving(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions);
    is_leaving(pod) || conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod's place is nobody's business but the scheduler's: one of a controller that makes another one anywhere, with
/// nothing that is bound to its host, and that doesn't say no.
fn may_move(pod: &Pod) -> bool {
    let mut controllers = pod.metadata.owners().iter().filter(|owner| owner.controller == Some(true));
    let says = pod.metadata.annotations().and_then(|annotations| annotations.get(REBALANCE));
    controllers
        .any(|owner| ["ReplicaSet", "ReplicationController", "StatefulSet"].contains(&owner.kind.as_str()))
        && pod.spec.as_ref().is_some_and(|spec| spec.volumes.is_none())
        && says.is_none_or(|says| says != "off")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Node;

    fn node(cluster: &mut Cluster, name: &str, ready: &str) {
        let node = json!({"metadata": {"name": name}, "status": {
            "allocatable": {"cpu": "10", "memory": "10Gi", "pods": "100"},
            "conditions": [{"type": "Ready", "status": ready}]}});
        cluster.set_node(name, Some(Arc::new(serde_json::from_value::<Node>(node).unwrap())));
    }

    fn replica(name: &str, kind: &str, extra: Value) -> Arc<Pod> {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": kind, "name": kind, "uid": kind, "controller": true}]);
        let ready = extra.get("ready").cloned().unwrap_or(json!("True"));
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": kind}, "ownerReferences": owner},
            "spec": {"containers": [{"name": "c"}], "volumes": extra.get("volumes"), "schedulerName": extra.get("scheduler")},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        pod["metadata"]["annotations"] = extra.get("annotations").cloned().unwrap_or_default();
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn back(host: &str) -> BTreeSet<String> {
        BTreeSet::from([host.to_owned()])
    }

    // Tests stand for the driver, which reads the clock.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    /// Two replicas on each of two hosts, and a third host that comes back.
    fn crowded(kind: &str, extra: &Value) -> Cluster {
        let mut cluster = Cluster::default();
        ["n1", "n2"].iter().for_each(|name| node(&mut cluster, name, "True"));
        node(&mut cluster, "n3", "Unknown");
        for (name, host) in [("a", "n1"), ("b", "n1"), ("c", "n1"), ("d", "n2"), ("e", "n2"), ("f", "n2")] {
            cluster.place(&replica(name, kind, extra.clone()), host);
        }
        cluster.take_returned();
        node(&mut cluster, "n3", "True");
        cluster
    }

    /// The same once the host has settled, and since when.
    fn settled(kind: &str, extra: &Value) -> (Cluster, Rebalance, Instant) {
        let (mut rebalance, now) = (Rebalance::default(), start());
        rebalance.returned(back("n3"), now);
        (crowded(kind, extra), rebalance, now + SETTLED)
    }

    #[test]
    fn after_a_host_s_return_one_replica_at_a_time_goes_until_they_are_even() {
        let (mut cluster, mut rebalance, mut now) =
            (crowded("ReplicaSet", &json!({})), Rebalance::default(), start());
        let returned = cluster.take_returned();
        assert_eq!(returned, back("n3"));
        rebalance.returned(returned, now);
        assert!(rebalance.decide(&mut cluster, now).is_none(), "it may go again");
        let mut moved = Vec::new();
        now += SETTLED;
        while let Some(time) = rebalance.next_time() {
            now = now.max(time);
            if let Some(pod) = rebalance.decide(&mut cluster, now) {
                let node = cluster.schedule(&pod).unwrap();
                cluster.remove(&pod);
                let replacement = replica(&format!("new-{}", moved.len()), "ReplicaSet", json!({}));
                cluster.place(&replacement, &node);
                moved.push((node, now));
            }
        }
        let nodes: Vec<_> = moved.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(nodes, ["n3", "n3"], "two of six are what is its part");
        assert!(moved[1].1 - moved[0].1 >= REST, "with a rest in between");
    }

    #[test]
    fn a_pod_that_does_not_serve_has_volumes_or_says_no_stays() {
        for (kind, extra, looks_again) in [
            ("ReplicaSet", json!({"annotations": {REBALANCE: "off"}}), false),
            (
                "ReplicaSet",
                json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]}),
                false,
            ),
            ("Job", json!({}), false),
            ("ReplicaSet", json!({"ready": "False"}), true),
        ] {
            let (mut cluster, mut rebalance, now) = settled(kind, &extra);
            assert!(rebalance.decide(&mut cluster, now).is_none(), "{kind} {extra}");
            assert_eq!(rebalance.next_time().is_some(), looks_again, "{kind} {extra}");
        }
    }

    #[test]
    fn no_second_replica_goes_before_the_first_one_is_replaced() {
        let (mut cluster, mut rebalance, mut now) = settled("ReplicaSet", &json!({}));
        let gone = rebalance.decide(&mut cluster, now).unwrap();
        cluster.remove(&gone);
        for _ in 0..5 {
            now += REST;
            assert!(rebalance.decide(&mut cluster, now).is_none(), "a quota keeps its replacement away");
        }
        cluster.place(&replica("new", "ReplicaSet", json!({})), "n3");
        assert!(rebalance.decide(&mut cluster, now + REST).is_some());
    }

    #[test]
    fn a_workload_that_was_scaled_down_is_made_even_too_and_one_that_is_gone_is_forgotten() {
        let (mut cluster, mut rebalance, mut now) = settled("ReplicaSet", &json!({}));
        let gone = rebalance.decide(&mut cluster, now).unwrap();
        cluster.remove(&gone);
        let mut goes = None;
        for _ in 0..2 * SCALED {
            now += REST;
            goes = goes.or(rebalance.decide(&mut cluster, now));
        }
        assert!(goes.is_some(), "five are what it has now");
        for name in ["a", "b", "c", "d", "e", "f"] {
            if name != gone.metadata.name.as_deref().unwrap() {
                cluster.remove(&replica(name, "ReplicaSet", json!({})));
            }
        }
        assert!(rebalance.decide(&mut cluster, now + REST).is_none());
        assert_eq!(rebalance.next_time(), None);
    }

    #[test]
    fn what_another_scheduler_placed_stays() {
        let (mut cluster, mut rebalance, now) = settled("ReplicaSet", &json!({"scheduler": "other"}));
        assert!(rebalance.decide(&mut cluster, now).is_none());
        assert_eq!(rebalance.next_time(), None);
    }

    #[test]
    fn workloads_that_lie_evenly_hold_no_other_one_up() {
        let (mut cluster, mut rebalance, now) = settled("StatefulSet", &json!({}));
        for (name, host) in [("x", "n1"), ("y", "n1"), ("z", "n2"), ("w", "n3")] {
            cluster.place(&replica(name, "Job", json!({})), host);
        }
        let gone = std::iter::repeat_with(|| rebalance.decide(&mut cluster, now)).take(2).flatten();
        assert_eq!(gone.count(), 1, "both were looked at in the same moment");
    }

    #[test]
    fn a_host_that_comes_and_goes_puts_nothing_off() {
        let (mut cluster, mut rebalance, now) =
            (crowded("ReplicaSet", &json!({})), Rebalance::default(), start());
        rebalance.returned(back("n3"), now);
        (0..6).for_each(|times| rebalance.returned(back("n9"), now + times * SETTLED / 5));
        assert!(rebalance.decide(&mut cluster, now + SETTLED).is_some());
    }

    #[test]
    fn nobody_moves_to_a_host_that_has_not_settled_itself() {
        let (mut cluster, mut rebalance, now) = settled("ReplicaSet", &json!({}));
        rebalance.returned(back("n9"), now - SETTLED);
        rebalance.returned(back("n3"), now - REST);
        assert!(rebalance.decide(&mut cluster, now).is_none(), "another one has settled, and n3 has not");
        assert!(rebalance.decide(&mut cluster, now + REST).is_some());
    }

    #[test]
    fn a_member_that_only_follows_leaves_the_past_to_the_one_that_led() {
        let (mut cluster, mut rebalance, now) =
            (crowded("ReplicaSet", &json!({})), Rebalance::default(), start());
        rebalance.returned(back("n3"), now);
        rebalance.stand_by(now + SETTLED / 2);
        assert_eq!(rebalance.next_time(), Some(now + SETTLED), "it may lead by then");
        rebalance.stand_by(now + SETTLED);
        assert_eq!(rebalance.next_time(), None);
        assert!(rebalance.decide(&mut cluster, now + 2 * SETTLED).is_none());
    }

    #[test]
    fn only_a_host_that_takes_pods_again_is_a_reason() {
        let mut cluster = Cluster::default();
        node(&mut cluster, "n1", "True");
        assert_eq!(cluster.take_returned(), back("n1"), "a new one is as good");
        node(&mut cluster, "n1", "True");
        cluster.set_silent(["n1".to_owned()].iter());
        node(&mut cluster, "n1", "Unknown");
        assert_eq!(cluster.take_returned(), BTreeSet::new());
        node(&mut cluster, "n1", "True");
        assert_eq!(cluster.take_returned(), BTreeSet::new(), "it isn't heard yet");
        cluster.set_silent([].iter());
        assert_eq!(cluster.take_returned(), back("n1"));
    }
}
