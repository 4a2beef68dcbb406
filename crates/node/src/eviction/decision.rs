//! Which pressures a host is under, and when pods must go: a function of what is left and of time, as the kubelet's eviction manager
//! has it (`pkg/kubelet/eviction/eviction_manager.go`, `synchronize`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::signals::{Eviction, Observed, Signal, Threshold};

/// What a host is short of, as its Node's conditions say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressures {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

impl Pressures {
    fn of(signal: Signal) -> Self {
        Pressures { memory: signal == Signal::Memory, disk: signal.is_disk(), pid: signal == Signal::Pid }
    }

    fn and(self, other: Self) -> Self {
        Pressures {
            memory: self.memory || other.memory,
            disk: self.disk || other.disk,
            pid: self.pid || other.pid,
        }
    }

    /// The names of the conditions.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all = [(self.disk, "DiskPressure"), (self.memory, "MemoryPressure"), (self.pid, "PIDPressure")];
        all.into_iter().filter_map(|(holds, name)| holds.then_some(name)).collect()
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verdict {
    pub pressures: Pressures,
    /// What is short, if something must be done about it: the most urgent.
    pub short: Option<Threshold>,
}

/// Decides, and remembers what it saw.
#[derive(Debug)]
pub(crate) struct Decider {
    settings: Eviction,
    /// Since when each threshold is met, by its place.
    met: BTreeMap<usize, Duration>,
    /// When something of each signal was short last.
    last: BTreeMap<Signal, Duration>,
}

impl Decider {
    pub(crate) fn new(settings: Eviction) -> Self {
        Decider { settings, met: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Looks at what is left. `now` is by a clock that only goes on.
    pub(crate) fn look(&mut self, observed: &Observed, now: Duration) -> Verdict {
        let was_met = std::mem::take(&mut self.met);
        for (place, threshold) in self.settings.thresholds.iter().enumerate() {
            let since = was_met.get(&place).copied();
            // One that was met stays so until there is more than just enough.
            if is_short(threshold, observed, since.is_some()) {
                self.met.insert(place, since.unwrap_or(now));
                self.last.insert(threshold.signal, now);
            }
        }
        let transition = self.settings.transition;
        self.last.retain(|_, last| now.saturating_sub(*last) < transition || *last == now);
        let pressures =
            self.last.keys().fold(Pressures::default(), |all, signal| all.and(Pressures::of(*signal)));
        let due = self.met.iter().filter_map(|(place, since)| {
            let threshold = self.settings.thresholds.get(*place)?;
            let waits = threshold.grace.is_some_and(|grace| now.saturating_sub(*since) < grace);
            (!waits).then_some(*threshold)
        });
        Verdict {
            pressures,
            short: due.min_by_key(|threshold| (threshold.signal, threshold.grace.is_some())),
        }
    }

    /// Whether a threshold isn't met any more, after something was done about it.
    pub(crate) fn is_over(threshold: &Threshold, observed: &Observed) -> bool {
        !is_short(threshold, observed, true)
    }
}

fn is_short(threshold: &Threshold, observed: &Observed, was_short: bool) -> bool {
    let Some(left) = observed.get(&threshold.signal) else { return false };
    let more = threshold.reclaim.filter(|_| was_short).map_or(0, |more| more.of(left.whole));
    left.available < threshold.below.of(left.whole).saturating_add(more)
}

#[cfg(test)]
mod tests {
    use super::super::signals::{Bound, Left};
    use super::*;

    const MEMORY: Threshold = Threshold::hard(Signal::Memory, Bound::Amount(100));

    fn decider(thresholds: &[Threshold]) -> Decider {
        let transition = Duration::from_secs(300);
        Decider::new(Eviction { thresholds: thresholds.to_vec(), transition, ..Eviction::default() })
    }

    fn left(all: &[(Signal, u64)]) -> Observed {
        all.iter().map(|(signal, available)| (*signal, Left { whole: 1000, available: *available })).collect()
    }

    #[test]
    fn a_pressure_is_told_for_a_while_after_it_is_over() {
        let mut decider = decider(&[MEMORY]);
        let mut look = |available, at| {
            let verdict = decider.look(&left(&[(Signal::Memory, available)]), Duration::from_secs(at));
            (verdict.pressures.memory, verdict.short.is_some())
        };
        assert_eq!(look(100, 0), (false, false), "just enough");
        assert_eq!(look(99, 10), (true, true));
        assert_eq!(look(100, 20), (true, false), "nothing more is to be done");
        assert_eq!(look(500, 309), (true, false));
        assert_eq!(look(500, 310), (false, false));
        assert_eq!(look(1, 320), (true, true));
    }

    #[test]
    fn a_soft_threshold_waits_and_a_hard_one_does_not() {
        let soft = Threshold { below: Bound::Percent(30.0), grace: Some(Duration::from_secs(60)), ..MEMORY };
        let mut decider = decider(&[soft, MEMORY]);
        let mut look = |available, at| {
            let verdict = decider.look(&left(&[(Signal::Memory, available)]), Duration::from_secs(at));
            (verdict.pressures.memory, verdict.short.map(|short| short.grace.is_some()))
        };
        assert_eq!(look(299, 0), (true, None), "the pressure is told at once");
        assert_eq!(look(299, 59), (true, None));
        assert_eq!(look(299, 60), (true, Some(true)));
        assert_eq!(look(300, 70), (true, None));
        assert_eq!(look(299, 80), (true, None), "it counts anew");
        assert_eq!(look(99, 90), (true, Some(false)), "the hard one doesn't wait");
        assert_eq!(look(99, 140), (true, Some(false)), "and comes first");
    }

    #[test]
    fn what_was_short_needs_more_than_just_enough() {
        let threshold = Threshold { reclaim: Some(Bound::Amount(50)), ..MEMORY };
        let mut decider = decider(&[threshold]);
        let mut look =
            |available| decider.look(&left(&[(Signal::Memory, available)]), Duration::ZERO).short.is_some();
        assert!(!look(100), "it never was short");
        assert!(look(99) && look(149) && !look(150) && !look(100));
        assert!(Decider::is_over(&threshold, &left(&[(Signal::Memory, 150)])));
        assert!(!Decider::is_over(&threshold, &left(&[(Signal::Memory, 149)])));
    }

    #[test]
    fn memory_comes_first_and_what_is_not_known_is_not_short() {
        let all = Eviction { thresholds: Eviction::default().thresholds, ..Eviction::default() };
        let mut decider = Decider::new(all);
        let observed = left(&[(Signal::Imagefs, 149), (Signal::Nodefs, 100), (Signal::Memory, 1)]);
        let verdict = decider.look(&observed, Duration::ZERO);
        assert_eq!(verdict.short.map(|short| short.signal), Some(Signal::Memory));
        assert_eq!(verdict.pressures, Pressures { memory: true, disk: true, pid: false });
        assert_eq!(verdict.pressures.names(), ["DiskPressure", "MemoryPressure"]);
        let observed = left(&[(Signal::Imagefs, 150), (Signal::Nodefs, 99)]);
        let verdict = decider.look(&observed, Duration::from_secs(400));
        assert_eq!(verdict.short.map(|short| short.signal), Some(Signal::Nodefs));
        assert_eq!(decider.look(&left(&[]), Duration::from_secs(800)), Verdict::default());
    }
}
