//! What the scheduler did and what waits, as Prometheus reads it, under upstream's names
//! (`pkg/scheduler/metrics` of Kubernetes).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use figures::{Histogram, family, sample, single};

/// The smallest bound of the histogram of attempts, in seconds; each further one is twice as large, as upstream.
const FIRST_BOUND: f64 = 0.001;
const BOUNDS: i32 = 15;
const PROFILE: &str = "default-scheduler";

/// How an attempt to place a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It has a node.
    Scheduled,
    /// No node could have it.
    Unschedulable,
    /// It had a node, and couldn't be bound to it.
    Error,
}

const ATTEMPTS: [(Attempt, &str); 3] =
    [(Attempt::Scheduled, "scheduled"), (Attempt::Unschedulable, "unschedulable"), (Attempt::Error, "error")];

/// How many pods wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Those to be decided on.
    pub active: usize,
    /// Those that found no place a moment ago.
    pub backoff: usize,
    /// Those that wait for something to happen that may help them.
    pub unschedulable: usize,
}

/// What the scheduler of this host counts. Pods wait only where the scheduler is at work: on the host that leads.
#[derive(Debug)]
pub struct Metrics {
    attempts: [Histogram; ATTEMPTS.len()],
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    preemptions: u64,
    victims: u64,
    pending: Pending,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            attempts: ATTEMPTS.map(|_| Histogram::doubling(FIRST_BOUND, BOUNDS)),
            figures: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts an attempt: from the decision to the answer to the bind.
    pub(crate) fn attempted(&self, attempt: Attempt, took: Duration) {
        self.attempts[attempt as usize].observe(took);
    }

    /// Counts a preemption and the number of its victims.
    pub(crate) fn preempted(&self, victims: usize) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.preemptions += 1;
        figures.victims += victims as u64;
    }

    /// Shows how many pods wait now.
    pub(crate) fn waiting(&self, pending: Pending) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).pending = pending;
    }

    /// Adds all of it in Prometheus' text format.
    pub fn write(&self, out: &mut String) {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts =
            || ATTEMPTS.iter().map(|(attempt, result)| (&self.attempts[*attempt as usize], *result));
        let name = "scheduler_schedule_attempts_total";
        family(out, name, "counter", "Attempts to place a pod, by how they ended");
        for (histogram, result) in attempts() {
            sample(out, name, &format!(r#"profile="{PROFILE}",result="{result}""#), histogram.count());
        }
        let name = "scheduler_scheduling_attempt_duration_seconds";
        family(out, name, "histogram", "From the decision about a pod to the answer to its bind");
        for (histogram, result) in attempts() {
            let labels = format!(r#"profile="{PROFILE}",result="{result}""#);
            histogram.write(out, name, &labels);
        }
        let preemptions = figures.preemptions;
        single(out, "scheduler_preemption_attempts_total", "counter", "Preemptions that began", preemptions);
        // A summary without quantiles: upstream's histogram has the same two names.
        let name = "scheduler_preemption_victims";
        family(out, name, "summary", "Pods that were chosen to go for another one");
        sample(out, &format!("{name}_sum"), "", figures.victims);
        sample(out, &format!("{name}_count"), "", preemptions);
        let name = "scheduler_pending_pods";
        family(
            out,
            name,
            "gauge",
            "Pods that wait for a node: to be decided on, for a pause, or for something that may help them",
        );
        let Pending { active, backoff, unschedulable } = figures.pending;
        for (queue, pods) in [("active", active), ("backoff", backoff), ("unschedulable", unschedulable)] {
            sample(out, name, &format!(r#"queue="{queue}""#), pods);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_waiting_pods_are_told_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        for (attempt, ms) in [
            (Attempt::Scheduled, 1),
            (Attempt::Scheduled, 3),
            (Attempt::Scheduled, 60_000),
            (Attempt::Unschedulable, 0),
            (Attempt::Error, 5),
        ] {
            metrics.attempted(attempt, Duration::from_millis(ms));
        }
        metrics.preempted(2);
        metrics.preempted(3);
        metrics.waiting(Pending { active: 4, backoff: 0, unschedulable: 7 });
        let mut text = String::new();
        metrics.write(&mut text);
        let of = |result: &str| format!(r#"profile="default-scheduler",result="{result}""#);
        let name = "scheduler_scheduling_attempt_duration_seconds";
        for expected in [
            format!("scheduler_schedule_attempts_total{{{}}} 3", of("scheduled")),
            format!("scheduler_schedule_attempts_total{{{}}} 1", of("unschedulable")),
            format!("scheduler_schedule_attempts_total{{{}}} 1", of("error")),
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{{},le=\"0.001\"}} 1", of("scheduled")),
            format!("{name}_bucket{{{},le=\"0.002\"}} 1", of("scheduled")),
            format!("{name}_bucket{{{},le=\"0.004\"}} 2", of("scheduled")),
            format!("{name}_bucket{{{},le=\"16.384\"}} 2", of("scheduled")),
            format!("{name}_bucket{{{},le=\"+Inf\"}} 3", of("scheduled")),
            format!("{name}_sum{{{}}} 60.004", of("scheduled")),
            format!("{name}_count{{{}}} 3", of("scheduled")),
            "scheduler_preemption_attempts_total 2".to_owned(),
            "scheduler_preemption_victims_sum 5".to_owned(),
            r#"scheduler_pending_pods{queue="active"} 4"#.to_owned(),
            r#"scheduler_pending_pods{queue="backoff"} 0"#.to_owned(),
            r#"scheduler_pending_pods{queue="unschedulable"} 7"#.to_owned(),
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is missing in\n{text}");
        }
    }
}
