//! The replacement: the first answer of a pod that did not exist before the cut.

use crate::clock::Clock;
use crate::probe::{Series, fresh};
use crate::sight::{Change, Watched, is_true, text};
use crate::workload::Workload;
use crate::{Ask, Moment};
use client::Client;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a new pod is asked.
const EVERY: Duration = Duration::from_millis(20);

/// The pods created since the cut. Each is asked from its creation, and counts once it is Ready: an answer
/// that a Service would not have passed on serves nobody.
pub(crate) struct Replacements {
    clock: Clock,
    client: Client,
    cut: Moment,
    pods: BTreeMap<String, Pod>,
    first: Option<(Moment, String)>,
}

struct Pod {
    ready: Option<Moment>,
    series: Option<Series>,
}

impl Replacements {
    pub(crate) fn since(cut: Moment, clock: Clock, client: &Client) -> Self {
        Replacements { clock, client: client.clone(), cut, pods: BTreeMap::new(), first: None }
    }

    /// Looks at a change that was seen.
    pub(crate) fn look(&mut self, at: Moment, change: &Change, workload: &Workload) {
        let (Watched::Pods, Some(new), None) = (change.kind, &change.new, &self.first) else { return };
        let name = text(new, "/metadata/name").to_owned();
        if change.old.is_none() && at >= self.cut && !self.pods.contains_key(&name) {
            self.pods.insert(name.clone(), Pod { ready: None, series: None });
        }
        let Some(pod) = self.pods.get_mut(&name) else { return };
        if pod.series.is_none()
            && let Some(path) = workload.pod_path(new)
        {
            pod.series = Some(Series::start(self.clock, EVERY, fresh(&self.client, path)));
        }
        if pod.ready.is_none() && is_true(new, "Ready") {
            pod.ready = Some(at);
        }
    }

    /// When the first of them answered, and which it was. From then on none is asked any more.
    pub(crate) fn answered(&mut self) -> Option<(Moment, String)> {
        if self.first.is_none() {
            let answers = self.pods.iter().filter_map(|(name, pod)| {
                let asks = pod.series.as_ref()?.asks().0;
                Some((first_answer(&asks, pod.ready?)?, name.clone()))
            });
            self.first = answers.min();
        }
        if self.first.is_some() {
            self.pods.clear();
        }
        self.first.clone()
    }
}

/// The first good answer that came when the pod was Ready.
fn first_answer(asks: &[Ask], ready: Moment) -> Option<Moment> {
    asks.iter().filter(|a| a.ok && a.done >= ready).map(|a| a.done).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_the_pod_is_ready() {
        let ask =
            |sent, done, ok| Ask { sent: Duration::from_millis(sent), done: Duration::from_millis(done), ok };
        let asks = [ask(0, 5, false), ask(20, 25, true), ask(40, 45, true), ask(60, 70, false)];
        for (ready, expected) in [(0, Some(25)), (25, Some(25)), (30, Some(45)), (46, None)] {
            let answered = first_answer(&asks, Duration::from_millis(ready));
            assert_eq!(answered, expected.map(Duration::from_millis), "ready at {ready}");
        }
    }
}
