//! When a probe asks, and what its answers mean: no clock, no sockets.
//!
//! As upstream: `initialDelaySeconds`, `periodSeconds`, `successThreshold`, `failureThreshold`. One deviation,
//! for speed: until its first success a probe asks every 50 ms (an exec probe every 200 ms) for the first
//! three seconds and half as often for seven more, so that a pod is ready as soon as it answers and not up to a
//! period later. These eager attempts can only succeed: a failure counts towards `failureThreshold` and is
//! reported only at the regular times, the first of them one period after the initial delay.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// A probe's numbers, with the API's defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub eager: Duration,
}

/// How long a probe is eager, and how long it is very eager. Most programs answer within three seconds of their start; one that
/// takes more than ten, a period by default, gains nothing by being asked sooner.
const EAGER: Duration = Duration::from_secs(10);
const VERY_EAGER: Duration = Duration::from_secs(3);

/// The answers so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    ever_succeeded: bool,
    healthy: bool,
    told_unhealthy: bool,
    successes: u32,
    failures: u32,
    regular: u32,
}

/// The next attempt: when, since the container's start, and whether a failure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub at: Duration,
    pub counts: bool,
}

impl Schedule {
    pub(crate) fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32, least: u32| {
            value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(least)
        };
        let seconds = |n: u32| Duration::from_secs(n.into());
        Schedule {
            initial_delay: seconds(number(probe.initial_delay_seconds, 0, 0)),
            period: seconds(number(probe.period_seconds, 10, 1)),
            timeout: seconds(number(probe.timeout_seconds, 1, 1)),
            success_threshold: number(probe.success_threshold, 1, 1),
            failure_threshold: number(probe.failure_threshold, 3, 1),
            eager: Duration::from_millis(if probe.exec.is_some() { 200 } else { 50 }),
        }
    }
}

impl History {
    /// That of a container that was well under a former agent.
    pub(crate) fn healthy() -> Self {
        History { ever_succeeded: true, healthy: true, ..History::default() }
    }

    /// The next attempt after one that ended at `elapsed` since the container's start.
    pub(crate) fn next(&mut self, schedule: &Schedule, elapsed: Duration) -> Attempt {
        let first = schedule.initial_delay;
        if elapsed < first || (elapsed.is_zero() && self.regular == 0) {
            return Attempt { at: first, counts: false };
        }
        // A slow attempt may have run past regular times: they are skipped, as a ticker's are.
        let mut regular = first + schedule.period * (self.regular + 1);
        while regular + schedule.period <= elapsed {
            self.regular += 1;
            regular += schedule.period;
        }
        if !self.ever_succeeded {
            let eager_for = elapsed - first;
            let step = if eager_for < VERY_EAGER { schedule.eager } else { schedule.eager * 2 };
            if eager_for < EAGER && elapsed + step < regular {
                return Attempt { at: elapsed + step, counts: false };
            }
        }
        self.regular += 1;
        Attempt { at: regular, counts: true }
    }

    /// Takes an answer in; the new verdict, if there is one.
    pub(crate) fn observe(&mut self, schedule: &Schedule, success: bool, counts: bool) -> Option<bool> {
        if success {
            self.ever_succeeded = true;
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            let turned = !self.healthy && self.successes >= schedule.success_threshold;
            if turned {
                self.healthy = true;
                self.told_unhealthy = false;
                return Some(true);
            }
            return None;
        }
        self.successes = 0;
        if !counts {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= schedule.failure_threshold && !self.told_unhealthy {
            self.healthy = false;
            self.told_unhealthy = true;
            return Some(false);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(delay: u64, period: u64, successes: u32, failures: u32) -> Schedule {
        Schedule {
            initial_delay: Duration::from_secs(delay),
            period: Duration::from_secs(period),
            timeout: Duration::from_secs(1),
            success_threshold: successes,
            failure_threshold: failures,
            eager: Duration::from_millis(50),
        }
    }

    /// The attempts of a probe whose answer at a time (in ms) is given: (ms, counts, verdict).
    fn attempts(s: &Schedule, until: u64, answer: impl Fn(u64) -> bool) -> Vec<(u64, bool, Option<bool>)> {
        let (mut history, mut at, mut list) = (History::default(), Duration::ZERO, Vec::new());
        loop {
            let next = history.next(s, at);
            // The attempt itself takes a millisecond.
            at = next.at + Duration::from_millis(1);
            let ms = u64::try_from(next.at.as_millis()).unwrap();
            if ms > until {
                return list;
            }
            list.push((ms, next.counts, history.observe(s, answer(ms), next.counts)));
        }
    }

    #[test]
    fn a_pod_is_ready_as_soon_as_it_answers() {
        let list = attempts(&schedule(0, 10, 1, 3), 25_000, |ms| ms > 100);
        assert_eq!(list[0], (0, false, None));
        assert_eq!(list[1], (51, false, None));
        assert_eq!(list[2], (102, false, Some(true)));
        let rest: Vec<u64> = list[3..].iter().map(|a| a.0).collect();
        assert_eq!(rest, [10_000, 20_000], "then by the period");
    }

    #[test]
    fn eager_failures_do_not_count_and_regular_ones_do() {
        let list = attempts(&schedule(1, 2, 1, 3), 20_000, |_| false);
        assert_eq!(list[0].0, 1000, "the initial delay is kept");
        let counted: Vec<(u64, Option<bool>)> = list.iter().filter(|a| a.1).map(|a| (a.0, a.2)).collect();
        assert_eq!(counted[..4], [(3000, None), (5000, None), (7000, Some(false)), (9000, None)]);
        assert!(list.iter().filter(|a| !a.1).all(|a| a.2.is_none()));
        assert!(list.iter().filter(|a| a.0 > 11_500).all(|a| a.1), "no longer eager");
    }

    #[test]
    fn what_was_well_stays_so_until_enough_failures_count() {
        let s = schedule(0, 2, 1, 2);
        let (mut history, mut at, mut list) = (History::healthy(), Duration::ZERO, Vec::new());
        for _ in 0..4 {
            let next = history.next(&s, at);
            at = next.at + Duration::from_millis(1);
            list.push((next.at.as_secs(), history.observe(&s, false, next.counts)));
        }
        assert_eq!(list, [(0, None), (2, None), (4, Some(false)), (6, None)]);
    }

    #[test]
    fn thresholds_need_answers_in_a_row() {
        let s = schedule(0, 1, 2, 2);
        let mut history = History::default();
        let mut verdicts = Vec::new();
        for success in [true, false, true, true, false, true, false, false, false, true, true] {
            verdicts.push(history.observe(&s, success, true));
        }
        let expected = [None, None, None, Some(true), None, None, None, Some(false), None, None, Some(true)];
        assert_eq!(verdicts, expected);
    }
}
