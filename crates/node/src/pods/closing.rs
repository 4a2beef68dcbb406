//! The order in which a host's pods end as it shuts down: by their priorities, group after group, each within its time.
//!
//! Follows `pkg/kubelet/nodeshutdown` (KEP-2000, KEP-2712).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::desk::Desk;
use super::entry::{Entry, evicted};
use crate::agent::ShutdownGroup;
use crate::eviction::priority;
use crate::pod::{Failure, is_over, spec_grace};

/// How long it may take, once the pods of a group are dead, to tell the API so. It may be away for good: other hosts shut down too.
const TELLING: Duration = Duration::from_secs(2);

/// A shutdown that is under way.
#[derive(Debug)]
pub(super) struct Closing {
    /// The lowest priority first.
    groups: Vec<ShutdownGroup>,
    /// Whose turn it is, and until when.
    turn: Option<(usize, Duration)>,
    /// Whether all of these are dead.
    are_dead: bool,
}

/// What there still is of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Nothing runs, and the API doesn't say so yet.
    Untold,
    /// Something runs.
    Alive,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Look again then, or when something happened.
    Wait(Duration),
    /// The pods of this group end, within that time.
    End(usize, Duration),
    /// All had their turn.
    Done,
}

impl Closing {
    /// A shutdown by these groups, of which there is at least one.
    pub(super) fn new(mut groups: Vec<ShutdownGroup>) -> Self {
        groups.sort_by_key(|group| group.priority);
        Closing { groups, turn: None, are_dead: false }
    }

    /// The group of a pod: the highest that it reaches, or the lowest.
    pub(super) fn group_of(&self, pod: &Pod) -> usize {
        let priority = priority(pod);
        self.groups.iter().rposition(|group| group.priority <= priority).unwrap_or(0)
    }

    /// Decides what to do now. `left` says what there still is of a group.
    pub(super) fn next(&mut self, left: impl Fn(usize) -> Left, now: Duration) -> Turn {
        let mut place = 0;
        if let Some((at, until)) = &mut self.turn {
            let is_left = left(*at);
            if is_left == Left::Untold && !self.are_dead {
                self.are_dead = true;
                *until = (*until).min(now + TELLING);
            }
            if is_left != Left::Nothing && now < *until {
                return Turn::Wait(*until);
            }
            place = *at + 1;
        }
        while let Some(group) = self.groups.get(place) {
            // An empty group costs no time.
            if left(place) != Left::Nothing {
                (self.turn, self.are_dead) = (Some((place, now + group.grace)), false);
                return Turn::End(place, group.grace);
            }
            place += 1;
        }
        self.turn = Some((self.groups.len(), now));
        Turn::Done
    }
}

impl Desk {
    /// The host shuts down: from now on no pod is taken, and those that there are end in order.
    pub(super) fn begin_closing(&mut self) {
        if self.host.shutdown.is_empty() {
            return self.leave();
        }
        tracing::info!("the host shuts down: its pods end in the order of their priorities");
        self.host.closing.send_replace(true);
        self.closing = Some(Closing::new(self.host.shutdown.clone()));
    }

    /// Has the pods end whose turn it is.
    pub(super) fn close(&mut self) {
        self.close_at = None;
        let (false, Some(closing)) = (self.leaving, &mut self.closing) else { return };
        let now = self.host.clock.now();
        let mut left = vec![Left::Nothing; closing.groups.len()];
        for entry in self.entries.values().filter(|entry| !entry.gone) {
            if let Some(group) = left.get_mut(closing.group_of(&entry.pod)) {
                *group = (*group).max(what_is_left(entry));
            }
        }
        let of_group = |place: usize| left.get(place).copied().unwrap_or(Left::Nothing);
        match closing.next(of_group, now.elapsed) {
            Turn::Wait(until) => self.close_at = Some(until),
            Turn::Done => self.leave(),
            Turn::End(place, grace) => {
                self.close_at = Some(now.elapsed + grace);
                for entry in self.entries.values_mut() {
                    if closing.group_of(&entry.pod) == place {
                        let grace = grace.min(spec_grace(&entry.pod));
                        evicted(&self.host, entry, terminated(), grace, now);
                        entry.wake = Some(Duration::ZERO);
                    }
                }
            }
        }
    }
}

/// What there still is of a pod, and whether the API knows.
fn what_is_left(entry: &Entry) -> Left {
    let is_told = match &entry.mirror {
        None => is_over(&entry.pod),
        Some(mirror) => {
            mirror.uid.is_none() || matches!(entry.stored["phase"].as_str(), Some("Failed" | "Succeeded"))
        }
    };
    match (entry.record.is_at_rest(), is_told) {
        (false, _) => Left::Alive,
        (true, false) => Left::Untold,
        (true, true) => Left::Nothing,
    }
}

/// Why a pod ends with its host.
pub(super) fn terminated() -> Failure {
    let message = "Pod was terminated in response to imminent node shutdown.".into();
    Failure { reason: "Terminated", message, is_disruption: true }
}

/// Why a pod isn't taken any more.
pub(super) fn refused() -> Failure {
    let message = "Pod was rejected as the node is shutting down.".into();
    Failure { reason: "NodeShutdown", message, is_disruption: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn closing() -> Closing {
        let group = |priority, count| ShutdownGroup { priority, grace: seconds(count) };
        Closing::new(vec![group(2_000_000_000, 10), group(0, 30), group(1000, 20)])
    }

    #[test]
    fn a_pod_goes_with_the_highest_group_that_it_reaches() {
        let of = |priority: Option<i32>| {
            let pod = Pod {
                spec: Some(k8s_openapi::api::core::v1::PodSpec { priority, ..Default::default() }),
                ..Pod::default()
            };
            closing().group_of(&pod)
        };
        let all = [None, Some(-5), Some(999), Some(1000), Some(1001), Some(2_000_001_000)];
        assert_eq!(all.map(of), [0, 0, 0, 1, 1, 2]);
    }

    #[test]
    fn groups_end_one_after_the_other_each_within_its_time() {
        let mut closing = closing();
        let all = |_| Left::Alive;
        assert_eq!(closing.next(all, seconds(100)), Turn::End(0, seconds(30)));
        assert_eq!(closing.next(all, seconds(129)), Turn::Wait(seconds(130)));
        assert_eq!(
            closing.next(all, seconds(130)),
            Turn::End(1, seconds(20)),
            "its time is over, whatever runs"
        );
        let after_first = |place| if place == 1 { Left::Nothing } else { Left::Alive };
        assert_eq!(
            closing.next(after_first, seconds(131)),
            Turn::End(2, seconds(10)),
            "at once when all are gone"
        );
        assert_eq!(closing.next(|_| Left::Nothing, seconds(132)), Turn::Done);
        assert_eq!(closing.next(all, seconds(133)), Turn::Done);
    }

    #[test]
    fn what_is_empty_costs_no_time_and_an_api_that_is_away_costs_little() {
        let mut closing = closing();
        let left = |place| if place == 0 { Left::Nothing } else { Left::Alive };
        assert_eq!(closing.next(left, seconds(0)), Turn::End(1, seconds(20)));
        let untold = |place| if place == 1 { Left::Untold } else { Left::Alive };
        assert_eq!(closing.next(untold, seconds(5)), Turn::Wait(seconds(7)));
        assert_eq!(closing.next(untold, seconds(6)), Turn::Wait(seconds(7)), "that is counted once");
        assert_eq!(closing.next(untold, seconds(7)), Turn::End(2, seconds(10)));
    }
}
