//! How a host's pods end as it shuts down, in the words of a kubelet's configuration (`shutdownGracePeriod` and its siblings).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Findings;
use crate::check::LONGEST_TIME;

/// From this priority on pods are critical (`scheduling.SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;
/// The most groups of pods that end one after the other.
const MOST_GROUPS: usize = 32;

/// The section `shutdown` of a host's configuration. Without it pods have two seconds, and stay what they are in the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long all pods may take together.
    #[serde(with = "humantime_serde", skip_serializing_if = "Duration::is_zero")]
    pub grace_period: Duration,
    /// How much of it is for critical pods, which end after the others.
    #[serde(with = "humantime_serde", skip_serializing_if = "Duration::is_zero")]
    pub grace_period_critical_pods: Duration,
    /// How long the pods of which priorities may take, instead of both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grace_period_by_pod_priority: Vec<PriorityGrace>,
}

/// How long the pods from a priority on may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityGrace {
    /// The lowest priority of these pods.
    pub priority: i32,
    /// How long they may take.
    #[serde(with = "humantime_serde")]
    pub grace_period: Duration,
}

impl Shutdown {
    pub(crate) fn is_default(&self) -> bool {
        *self == Shutdown::default()
    }

    /// The groups in which pods end, the lowest priority first; none where nothing is said.
    pub fn groups(&self) -> Vec<PriorityGrace> {
        let mut groups = self.grace_period_by_pod_priority.clone();
        if groups.is_empty() && !self.grace_period.is_zero() {
            let critical = self.grace_period_critical_pods;
            let others = self.grace_period.saturating_sub(critical);
            groups.push(PriorityGrace { priority: 0, grace_period: others });
            if !critical.is_zero() {
                groups.push(PriorityGrace { priority: CRITICAL, grace_period: critical });
            }
        }
        groups.sort_by_key(|group| group.priority);
        groups
    }

    pub(crate) fn check(&self, findings: &mut Findings) {
        const BY_PRIORITY: &str = "shutdown.gracePeriodByPodPriority";
        let by_priority = &self.grace_period_by_pod_priority;
        findings.require(
            by_priority.is_empty()
                || self.grace_period.is_zero() && self.grace_period_critical_pods.is_zero(),
            BY_PRIORITY,
            "it stands beside shutdown.gracePeriod or shutdown.gracePeriodCriticalPods, which it replaces",
            "give the one or the others",
        );
        findings.require(
            self.grace_period_critical_pods <= self.grace_period,
            "shutdown.gracePeriodCriticalPods",
            "it is longer than shutdown.gracePeriod, of which it is a part",
            "make it shorter, or the other longer",
        );
        findings.require(
            by_priority.len() <= MOST_GROUPS,
            BY_PRIORITY,
            format!("{} groups are more than {MOST_GROUPS}", by_priority.len()),
            "name fewer",
        );
        let mut known = BTreeSet::new();
        for group in by_priority.iter().filter(|group| !known.insert(group.priority)) {
            findings.problem(BY_PRIORITY, format!("{} is there twice", group.priority), "name it once");
        }
        let whole =
            self.groups().iter().fold(Duration::ZERO, |sum, group| sum.saturating_add(group.grace_period));
        findings.require(
            whole <= LONGEST_TIME,
            "shutdown",
            format!("all of it may take {} s", whole.as_secs()),
            "take an hour at most",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(said: serde_json::Value) -> Vec<(i32, u64)> {
        let shutdown: Shutdown = serde_json::from_value(said).unwrap();
        let again: Shutdown = serde_json::from_value(serde_json::to_value(&shutdown).unwrap()).unwrap();
        assert_eq!(again, shutdown);
        shutdown.groups().into_iter().map(|group| (group.priority, group.grace_period.as_secs())).collect()
    }

    #[test]
    fn the_time_of_critical_pods_is_a_part_of_all() {
        assert_eq!(groups(json!({})), []);
        assert_eq!(groups(json!({"gracePeriod": "30s"})), [(0, 30)]);
        let both = json!({"gracePeriod": "30s", "gracePeriodCriticalPods": "10s"});
        assert_eq!(groups(both), [(0, 20), (CRITICAL, 10)]);
        let by_priority = json!({"gracePeriodByPodPriority": [
            {"priority": 1000, "gracePeriod": "1m"}, {"priority": -1, "gracePeriod": "2s"}]});
        assert_eq!(groups(by_priority), [(-1, 2), (1000, 60)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let group = |priority| json!({"priority": priority, "gracePeriod": "1s"});
        for (said, count) in [
            (json!({"gracePeriod": "30s", "gracePeriodCriticalPods": "30s"}), 0),
            (json!({"gracePeriod": "30s", "gracePeriodCriticalPods": "31s"}), 1),
            (json!({"gracePeriodCriticalPods": "1s"}), 1),
            (json!({"gracePeriod": "61m"}), 1),
            (json!({"gracePeriod": "30s", "gracePeriodByPodPriority": [group(0)]}), 1),
            (json!({"gracePeriodByPodPriority": [group(0), group(1), group(0)]}), 1),
            (json!({"gracePeriodByPodPriority": (0..33).map(group).collect::<Vec<_>>()}), 1),
        ] {
            let mut findings = Findings::default();
            serde_json::from_value::<Shutdown>(said.clone()).unwrap().check(&mut findings);
            assert_eq!(findings.problems.len(), count, "{said}: {findings:?}");
        }
    }
}
