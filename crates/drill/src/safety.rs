//! What no fault may cost: whether anything ran twice, an address was held twice, or something was replaced that nobody had lost. What can't be
//! seen against a cluster stays open, with the reason, and is never a zero.

use crate::sight::text;
use crate::steady::Picture;
use crate::timeline::{Event, Source};
use crate::{Moment, Percentiles, Run};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How often happened what must not, of one run or of all of them. What wasn't seen is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How many identities of the StatefulSet answered from two hosts at once.
    pub double_runs: Option<usize>,
    /// How many questions for the API's virtual address were answered by two hosts.
    pub double_holders: Option<usize>,
    /// How many pods were removed though they were not lost.
    pub needless_replacements: Option<usize>,
    /// Requests that failed through the surviving hosts.
    pub failed_on_survivors: Option<usize>,
    /// Answers of a host that was cut off, older than what had been acknowledged before they were asked for.
    pub stale_answers: Option<usize>,
    /// Changes that a host acknowledged while it was cut off.
    pub minority_writes: Option<usize>,
}

impl Counts {
    /// In the order in which it is shown.
    pub(crate) fn all(&self) -> [Option<usize>; 6] {
        [
            self.double_runs,
            self.double_holders,
            self.needless_replacements,
            self.failed_on_survivors,
            self.stale_answers,
            self.minority_writes,
        ]
    }

    /// Of all runs. A sum over some of the runs would look like one over all.
    fn sum<'a>(all: impl Iterator<Item = &'a Counts> + Clone) -> Self {
        let sum = |of: fn(&Counts) -> Option<usize>| {
            let counts: Option<Vec<usize>> = all.clone().map(of).collect();
            counts.filter(|counts| !counts.is_empty()).map(|counts| counts.iter().sum())
        };
        Counts {
            double_runs: sum(|counts| counts.double_runs),
            double_holders: sum(|counts| counts.double_holders),
            needless_replacements: sum(|counts| counts.needless_replacements),
            failed_on_survivors: sum(|counts| counts.failed_on_survivors),
            stale_answers: sum(|counts| counts.stale_answers),
            minority_writes: sum(|counts| counts.minority_writes),
        }
    }
}

/// What a run says of it. `null` is what wasn't seen, with its reason in `unseen`; of the two times also what never came, without one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Safety {
    /// Milliseconds from the fault to the first answer after which nothing failed, of the StatefulSet's pods that ran on the host: of the last one.
    pub stateful_answered_ms: Option<u64>,
    /// Which of them was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateful_pod: Option<String>,
    /// Milliseconds from the fault until the cluster counted on it that nothing ran there any more that must not run twice.
    pub fenced_ms: Option<u64>,
    /// How often happened what must not.
    #[serde(flatten)]
    pub counts: Counts,
    /// Requests that the busiest instance of the service got for one of the least busy, once the service was back.
    pub spread: Option<f64>,
    /// Why what is `null` wasn't seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen: BTreeMap<&'static str, String>,
}

impl Safety {
    /// Takes what was seen, or the reason why it wasn't.
    pub(crate) fn take<T>(&mut self, name: &'static str, seen: Result<T, String>) -> Option<T> {
        seen.map_err(|why| self.unseen.insert(name, why)).ok()
    }

    /// What never came, though it should have.
    pub(crate) fn is_recovered(&self) -> bool {
        self.stateful_answered_ms.is_some() || self.unseen.contains_key("stateful_answered_ms")
    }

    /// What must not happen, in words.
    pub(crate) fn broken(&self) -> Vec<String> {
        let counts = [
            ("stateful identities that ran on two hosts at once", self.counts.double_runs),
            ("questions for the virtual address that two hosts answered", self.counts.double_holders),
            ("pods that were replaced without need", self.counts.needless_replacements),
            ("stale answers of the minority", self.counts.stale_answers),
            ("writes that the minority took", self.counts.minority_writes),
        ];
        let broken = counts.into_iter().filter_map(|(what, count)| Some((what, count.filter(|n| *n > 0)?)));
        broken.map(|(what, count)| format!("{what}: {count}")).collect()
    }
}

/// The same of all runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SafetySummary {
    /// Of the stateful pods' first answers.
    pub stateful_answered_ms: Option<Percentiles>,
    /// Of the fencing.
    pub fenced_ms: Option<Percentiles>,
    /// All of them.
    #[serde(flatten)]
    pub counts: Counts,
    /// The least even of all runs in which it was seen.
    pub spread: Option<f64>,
    /// Why what is `null` wasn't seen: in the first run that didn't see it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen: BTreeMap<&'static str, String>,
}

impl SafetySummary {
    pub(crate) fn of(runs: &[Run]) -> Self {
        let all: Vec<&Safety> = runs.iter().map(|run| &run.safety).collect();
        let mut summary = SafetySummary::default();
        let counts = Counts::sum(all.iter().map(|safety| &safety.counts));
        let names = [
            "double_runs",
            "double_holders",
            "needless_replacements",
            "failed_on_survivors",
            "stale_answers",
            "minority_writes",
        ];
        for (name, count) in names.into_iter().zip(counts.all()) {
            summary.keep(name, count, &all);
        }
        let mut clock = |name: &'static str, of: fn(&Safety) -> Option<u64>| {
            let seen: Vec<Option<u64>> = all
                .iter()
                .filter(|safety| !safety.unseen.contains_key(name))
                .map(|safety| of(safety))
                .collect();
            summary.keep(name, (!seen.is_empty()).then(|| Percentiles::of(&seen)), &all)
        };
        let stateful_answered_ms = clock("stateful_answered_ms", |safety| safety.stateful_answered_ms);
        let fenced_ms = clock("fenced_ms", |safety| safety.fenced_ms);
        let worst = all.iter().filter_map(|safety| safety.spread).max_by(f64::total_cmp);
        let spread = summary.keep("spread", worst, &all);
        SafetySummary { stateful_answered_ms, fenced_ms, counts, spread, unseen: summary.unseen }
    }

    fn keep<T>(&mut self, name: &'static str, seen: Option<T>, all: &[&Safety]) -> Option<T> {
        if seen.is_none() {
            let why = all.iter().find_map(|safety| safety.unseen.get(name)).cloned();
            // A run may have had nothing of the kind to see, as without a host that is cut off.
            let why = why.or_else(|| all.is_empty().then(|| "there was no run".into()));
            why.map(|why| self.unseen.insert(name, why));
        }
        seen
    }
}

/// The pods that no fault of this host should have cost, by `namespace/name`: those on other hosts, and all where the fault loses no pod.
pub(crate) fn to_be_kept(rest: &Picture, target: &str, loses_pods: bool) -> BTreeSet<String> {
    let kept = rest.all_pods().filter(|pod| !loses_pods || text(pod, "/spec/nodeName") != target);
    let name = |pod: &Value| format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    kept.map(name).collect()
}

/// How many of these pods were removed since then.
pub(crate) fn needless(kept: &BTreeSet<String>, events: &[Event], since: Moment) -> usize {
    let removed =
        events.iter().filter(|e| e.source == Source::Watch && e.what == "pod-deleted" && e.at >= since);
    let removed: BTreeSet<&str> = removed.filter_map(|e| e.subject.as_deref()).collect();
    removed.into_iter().filter(|pod| kept.contains(*pod)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn what_was_lost_may_be_replaced_and_nothing_else() {
        let pod = |name: &str, host: &str| json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"nodeName": host}});
        let rest = Picture {
            pods: vec![pod("web-1", "n1"), pod("web-2", "n2")],
            stateful_pods: vec![pod("db-0", "n1"), pod("db-1", "n2")],
            ..Picture::default()
        };
        let event = |at: u64, what: &str, subject: &str, source| Event {
            at: Duration::from_millis(at),
            what: what.into(),
            host: None,
            subject: Some(subject.into()),
            fields: BTreeMap::new(),
            source,
        };
        let events = [
            event(5, "pod-deleted", "x/web-2", Source::Watch),
            event(20, "pod-deleted", "x/web-1", Source::Watch),
            event(30, "pod-deleted", "x/db-0", Source::Watch),
            event(40, "pod-deleted", "x/db-1", Source::Watch),
            event(45, "pod-deleted", "x/db-1", Source::Watch),
            event(50, "pod-deleted", "x/spare", Source::Watch),
            event(50, "pod-created", "x/web-2", Source::Watch),
        ];
        for (target, loses, count) in [("n1", true, 1), ("n2", true, 2), ("n1", false, 3)] {
            let kept = to_be_kept(&rest, target, loses);
            assert_eq!(needless(&kept, &events, Duration::from_millis(10)), count, "{target} {loses}");
        }
    }

    fn run(safety: Safety) -> Run {
        Run { safety, ..crate::render::tests::example().runs[0].clone() }
    }

    #[test]
    fn a_sum_is_of_all_runs_or_of_none() {
        let seen = |ms: u64| Safety {
            stateful_answered_ms: Some(ms),
            counts: Counts { double_runs: Some(1), ..Counts::default() },
            spread: Some(1.25),
            ..Safety::default()
        };
        let mut unseen = Safety { spread: Some(1.5), ..Safety::default() };
        assert_eq!(unseen.take::<usize>("double_runs", Err("no name".into())), None);
        unseen.take::<u64>("stateful_answered_ms", Err("not there".into()));
        let summary = SafetySummary::of(&[run(seen(10)), run(seen(30))]);
        assert_eq!((summary.counts.double_runs, summary.spread), (Some(2), Some(1.25)));
        assert_eq!(summary.stateful_answered_ms.unwrap().max, Some(30));
        let summary = SafetySummary::of(&[run(seen(10)), run(unseen.clone())]);
        assert_eq!((summary.counts.double_runs, summary.spread), (None, Some(1.5)));
        assert_eq!(summary.unseen["double_runs"], "no name");
        assert_eq!(summary.stateful_answered_ms.unwrap().max, Some(10), "the other run had none to lose");
        let never = Safety::default();
        assert!(!never.is_recovered() && unseen.is_recovered());
        assert_eq!(SafetySummary::of(&[run(never)]).stateful_answered_ms.unwrap().p50, None, "it never came");
        assert_eq!(SafetySummary::of(&[run(unseen)]).stateful_answered_ms, None);
        assert_eq!(SafetySummary::of(&[]).unseen["double_runs"], "there was no run");
    }

    #[test]
    fn what_must_not_happen_is_said() {
        assert_eq!(Safety::default().broken(), Vec::<String>::new(), "what isn't seen isn't said");
        let counts = Counts { double_runs: Some(1), double_holders: Some(0), ..Counts::default() };
        let broken = Safety { counts, ..Safety::default() }.broken();
        assert_eq!(broken, ["stateful identities that ran on two hosts at once: 1"]);
        let counts = Counts { stale_answers: Some(2), minority_writes: Some(3), ..Counts::default() };
        let broken = Safety { counts, ..Safety::default() }.broken();
        assert_eq!(broken, ["stale answers of the minority: 2", "writes that the minority took: 3"]);
    }
}
