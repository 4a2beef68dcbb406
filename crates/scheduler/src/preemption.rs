//! Which pods go for one of higher priority that has no place.
//!
//! Follows `pkg/scheduler/framework/preemption` and `plugins/defaultpreemption` upstream: who may be preempted, whom a budget
//! protects, and which of several nodes suffers least. Pods are taken away from the row of their host, and the very same
//! ledger that found no place says whether there is one now.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use objects::{DISRUPTION_TARGET, Pod, selects};

use crate::cluster::{Cluster, is_leaving, key};
use crate::tell::PREEMPTED;
use crate::unschedulable::{Hope, Preemption, Reason, Unschedulable, Victims};
use crate::wish::{priority, spec};

/// The most nodes with victims that are compared, or the tenth part of all if that is more
/// (`minCandidateNodesAbsolute` and `minCandidateNodesPercentage` of upstream's `DefaultPreemptionArgs`).
const MOST_CANDIDATES: usize = 100;
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
pub(crate) const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// The disruption budgets, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Budgets(BTreeMap<(String, String), Arc<PodDisruptionBudget>>);

impl Budgets {
    pub fn set(&mut self, namespace: &str, name: &str, budget: Option<Arc<PodDisruptionBudget>>) {
        let at = (namespace.to_owned(), name.to_owned());
        match budget {
            Some(budget) => self.0.insert(at, budget),
            None => self.0.remove(&at),
        };
    }

    /// Which of some pods may not go if all before them do.
    fn violated(&self, pods: &[Arc<Pod>]) -> Vec<bool> {
        let mut left: BTreeMap<&(String, String), i32> = BTreeMap::new();
        let mut violates = |pod: &Arc<Pod>| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let first = (namespace.to_owned(), String::new());
            let near = self.0.range(first..).take_while(|((other, _), _)| other == namespace);
            let mut violated = false;
            for (at, budget) in near.filter(|(_, budget)| protects(budget, pod)) {
                let allowed =
                    budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
                let left = left.entry(at).or_insert(allowed);
                *left -= 1;
                violated |= *left < 0;
            }
            violated
        };
        pods.iter().map(&mut violates).collect()
    }
}

/// Whether a budget counts a pod that goes. One that the API let go already is counted; as upstream, a budget that selects by
/// nothing protects nobody here.
fn protects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let is_empty = selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none();
    let gone = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let gone = gone.is_some_and(|pods| pods.contains_key(pod.metadata.name.as_deref().unwrap_or_default()));
    let labels = pod.metadata.labels.as_deref().filter(|labels| !labels.is_empty());
    !is_empty && !gone && labels.is_some() && selects(selector, labels)
}

/// A node that would have room, and what that costs.
struct Candidate {
    host: usize,
    /// The most important first; never empty.
    victims: Vec<Arc<Pod>>,
    /// How many of them a budget protects.
    violations: usize,
}

impl Candidate {
    /// The least suffers least: protected pods, the highest priority, all priorities, how many, and how long the most important
    /// of them have been running.
    fn harm(&self) -> impl Ord + use<> {
        let highest = self.victims.iter().map(|pod| priority(pod)).max();
        // As upstream, every victim weighs something, whatever its priority.
        let weight = |pod: &Arc<Pod>| i64::from(priority(pod)) + i64::from(i32::MAX) + 1;
        let most_important = self.victims.iter().filter(|pod| Some(priority(pod)) == highest);
        let started = most_important.filter_map(|pod| started(pod)).min();
        let weights: i64 = self.victims.iter().map(weight).sum();
        (self.violations, highest, weights, self.victims.len(), Reverse(started))
    }
}

/// Pods in the order of their importance: by priority, then those that have been running for longer.
fn importance(pod: &Arc<Pod>) -> impl Ord + use<> {
    (Reverse(priority(pod)), started(pod), pod.metadata.name.clone())
}

/// When a pod got its place. Upstream compares `status.startTime`, the moment when the kubelet saw that; what a pod's condition
/// says needs no field of its own in memory.
fn started(pod: &Pod) -> Option<Timestamp> {
    let placed = pod.condition("PodScheduled").filter(|condition| condition.status == "True");
    let placed = placed.and_then(|condition| condition.last_transition_time.as_ref());
    placed.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Whether a pod is on its way out since it was preempted.
fn goes_for_another(pod: &Pod) -> bool {
    let target = pod.condition(DISRUPTION_TARGET).filter(|condition| condition.status == "True");
    is_leaving(pod) && target.is_some_and(|target| target.reason.as_deref() == Some(PREEMPTED))
}

/// A pod that found no place.
pub(crate) struct Preemptor<'a> {
    pub pod: &'a Arc<Pod>,
    /// The number of its ledger, which is up to date.
    pub ledger: usize,
    /// The host that it was nominated for before.
    pub nominated: Option<usize>,
    /// The hosts where it may help that others go.
    pub helpable: &'a [usize],
    /// How many nodes there are.
    pub nodes: usize,
}

impl Cluster {
    /// Looks for pods of lower priority that may go for one without a place. Changes nothing in the end.
    pub(crate) fn preempt(&mut self, preemptor: &Preemptor<'_>) -> Preemption {
        if spec(preemptor.pod).preemption_policy.as_deref() == Some("Never") {
            return Preemption::Refused("not eligible due to preemptionPolicy=Never.".to_owned());
        }
        let own = priority(preemptor.pod);
        let goes = |pod: &Arc<Pod>| priority(pod) < own && goes_for_another(pod);
        if let Some(host) = preemptor.nominated.filter(|host| preemptor.helpable.contains(host))
            && self.hosts[host].pods.iter().any(goes)
        {
            return Preemption::UnderWay(
                "not eligible due to a terminating pod on the nominated node.".to_owned(),
            );
        }
        let mut why = Unschedulable::default();
        let candidates = self.candidates(preemptor, &mut why);
        let Some(best) = candidates.into_iter().min_by_key(Candidate::harm) else {
            let unlike = preemptor.nodes - why.nodes;
            (0..unlike).for_each(|_| why.count(vec![Reason::new(NOT_HELPFUL, Hope::NONE)]));
            return Preemption::Refused(why.to_string());
        };
        let host = &self.hosts[best.host];
        let displaced = host.nominees.iter().filter(|nominee| nominee.priority < own);
        Preemption::Possible(Victims {
            node: host.name.to_string(),
            displaced: displaced.map(|nominee| nominee.pod.clone()).collect(),
            pods: best.victims,
        })
    }

    /// Nodes with pods that may go; why there are none on others is counted.
    fn candidates(&mut self, preemptor: &Preemptor<'_>, why: &mut Unschedulable) -> Vec<Candidate> {
        // Nobody is below it anywhere: the answer for every node, without a look at one.
        let own = priority(preemptor.pod);
        if self.priorities.keys().next().is_none_or(|lowest| *lowest >= own) {
            preemptor.helpable.iter().for_each(|_| why.count(vec![Reason::new(NO_VICTIMS, Hope::NONE)]));
            return Vec::new();
        }
        let most = MOST_CANDIDATES.max(preemptor.nodes / 10);
        // From another node on each time, or the first ones would always be the ones that suffer.
        let start = usize::try_from(self.decisions).unwrap_or(0) % preemptor.helpable.len().max(1);
        let (before, after) = preemptor.helpable.split_at(start);
        let mut candidates: Vec<Candidate> = Vec::new();
        for host in after.iter().chain(before) {
            match self.victims(preemptor, *host) {
                Ok(candidate) => candidates.push(candidate),
                Err(reasons) => why.count(reasons),
            }
            if candidates.len() >= most && candidates.iter().any(|candidate| candidate.violations == 0) {
                break;
            }
        }
        candidates
    }

    /// As few pods of one host as have to go, or why it doesn't help.
    fn victims(&mut self, preemptor: &Preemptor<'_>, at: usize) -> Result<Candidate, Vec<Reason>> {
        let own = priority(preemptor.pod);
        let lower = self.hosts[at].pods.iter().filter(|pod| priority(pod) < own);
        let mut lower: Vec<Arc<Pod>> = lower.cloned().collect();
        if lower.is_empty() {
            return Err(vec![Reason::new(NO_VICTIMS, Hope::NONE)]);
        }
        lower.sort_by_cached_key(importance);
        let row = self.hosts[at].clone();
        lower.iter().for_each(|pod| self.lift(at, pod));
        let against = self.against(preemptor.ledger, at);
        let found =
            if against.is_empty() { Ok(self.reprieve(preemptor.ledger, at, &lower)) } else { Err(against) };
        self.hosts[at] = row;
        self.ledgers[preemptor.ledger].update(at, &self.hosts, &self.namespaces);
        found
    }

    /// Puts pods back while there is room: those that a budget protects first, and the most important first.
    fn reprieve(&mut self, ledger: usize, at: usize, lower: &[Arc<Pod>]) -> Candidate {
        let violated = self.budgets.violated(lower);
        let mut victims = Vec::new();
        let mut violations = 0;
        for protected in [true, false] {
            for (place, pod) in lower.iter().enumerate().filter(|(place, _)| violated[*place] == protected) {
                let Some(placed) = self.placed.get(&key(pod)) else { continue };
                let (class, attached) = (placed.class.clone(), placed.attached.clone());
                self.hosts[at].add(pod, &class, &attached);
                if !self.against(ledger, at).is_empty() {
                    self.hosts[at].remove(pod, &class, &attached);
                    victims.push(place);
                    violations += usize::from(protected);
                }
            }
        }
        victims.sort_unstable();
        Candidate {
            host: at,
            victims: victims.into_iter().map(|place| lower[place].clone()).collect(),
            violations,
        }
    }

    fn lift(&mut self, at: usize, pod: &Arc<Pod>) {
        if let Some(placed) = self.placed.get(&key(pod)) {
            self.hosts[at].remove(pod, &placed.class, &placed.attached);
        }
    }

    /// What stands against a host as its row is now.
    fn against(&mut self, ledger: usize, at: usize) -> Vec<Reason> {
        let ledger = &mut self.ledgers[ledger];
        ledger.update(at, &self.hosts, &self.namespaces);
        ledger.against(at, &self.hosts, &ledger.round())
    }
}
