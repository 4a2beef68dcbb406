//! When a watchdog is fed, and which timeout it may have: functions of the lease and of the time.
//!
//! Of a beat that a majority acknowledged, sent at `s`, the others count [`Terms::fence`] from `s` on at least; by this host's clock, which may be wrong
//! by 5 %, that is `fence / 1.05`. A device that is fed at `t` resets the machine at `t + timeout`. So it is fed for a *slack* after `s` and no
//! longer, and `slack + timeout` and a margin fit in the count. The lease itself is over after [`Terms::lease`]; by then, or soon after,
//! nothing is left that must not run twice, and the device is fed again.

use std::time::Duration;

use membership::lease::{Boottime, Terms};

/// From the moment at which a feed was decided on to the kernel's, and from the device's time to the reset.
const MARGIN: Duration = Duration::from_millis(100);
/// How many beats may go unacknowledged before that costs a feed.
const BEATS: u32 = 10;
/// How often the lease is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How many times it is fed within its timeout.
const FEEDS: u32 = 8;
/// The last feed comes so long before it would be too late.
const LAST: Duration = Duration::from_millis(5);

/// By what the others count, and how often this host is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) terms: Terms,
    pub(super) beat: Duration,
}

impl Count {
    /// For how long the others count at least, by this host's clock.
    fn length(&self) -> Duration {
        self.terms.fence * 100 / 105
    }

    /// For how long after a beat was sent that a majority acknowledged a device with this timeout may be fed; nothing if it is too slow for
    /// these terms.
    pub(super) fn slack(&self, timeout: Duration) -> Option<Duration> {
        let slack = self.length().checked_sub(timeout.checked_add(MARGIN)?)?;
        (slack >= self.beat * BEATS).then_some(slack.min(self.terms.lease))
    }

    /// How long the count would have to be for a device with this timeout, in full tenths of a second.
    pub(super) fn needed(&self, timeout: Duration) -> Duration {
        let least = timeout.saturating_add(MARGIN + self.beat * BEATS).saturating_mul(105) / 100;
        Duration::from_millis(
            u64::try_from(least.as_millis()).unwrap_or(u64::MAX).div_ceil(100).saturating_mul(100),
        )
    }

    /// The timeouts in seconds that a device is asked for, the best first: half of the count is for the device, half for beats that are lost. Devices
    /// count in full seconds.
    pub(super) fn candidates(&self) -> impl Iterator<Item = u32> + use<> {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let rest = self.length().saturating_sub(MARGIN);
        let (wanted, longest) = (seconds(rest / 2).max(1), seconds(rest.saturating_sub(self.beat * BEATS)));
        (1..=wanted).rev().chain(wanted.saturating_add(1)..=longest)
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Whether the device is fed.
    pub(super) feeds: bool,
    /// When to look again at the latest.
    pub(super) wait: Duration,
}

/// Decides when a device is fed.
#[derive(Debug)]
pub(super) struct Feeder {
    /// By the times that this feeder was made for.
    lease: Duration,
    /// By those of the process that says now until when the lease holds, if they are shorter.
    lasts: Duration,
    slack: Duration,
    /// From one feed to the next.
    every: Duration,
    last: Option<Boottime>,
}

impl Feeder {
    /// For a device with this timeout; nothing if it is too slow for these terms.
    pub(super) fn new(count: Count, timeout: Duration) -> Option<Self> {
        let slack = count.slack(timeout)?;
        let lease = count.terms.lease;
        Some(Feeder { lease, lasts: lease, slack, every: timeout / FEEDS, last: None })
    }

    /// The lease lasts so long by the process that says until when; nothing if it hasn't said so. A feeder that has outlived its host's process may
    /// serve one with other times. With shorter ones it would take every beat for an old one, and never feed; with longer ones it stays by its
    /// own, as beats are as late as ever.
    pub(super) fn follow(&mut self, held_for: Option<Duration>) {
        self.lasts = held_for.map_or(self.lease, |held_for| held_for.min(self.lease));
    }

    /// `until` is when the host's lease ends; `is_left` whether something is left that must not run twice.
    pub(super) fn step(
        &mut self,
        until: Option<Boottime>,
        is_left: impl FnOnce() -> bool,
        now: Boottime,
    ) -> Step {
        let end = until.map(|until| until.saturating_sub(self.lasts) + self.slack).filter(|end| now < *end);
        let left = end.map(|end| end - now);
        let may = left.is_some() || !is_left();
        let is_due = self.last.is_none_or(|last| now.saturating_sub(last) >= self.every);
        // The last feed before the end comes as late as it can: all that stops by itself is to have its time.
        let is_last = left.is_some_and(|left| left <= LOOK);
        let feeds = may && (is_due || is_last);
        if feeds {
            self.last = Some(now);
        }
        let wait = left.filter(|left| *left > 2 * LAST).map_or(LOOK, |left| (left - LAST).min(LOOK));
        Step { feeds, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn count(lease: u64, fence: u64) -> Count {
        Count { terms: Terms { lease: ms(lease), fence: ms(fence) }, beat: ms(50) }
    }

    #[test]
    fn a_device_is_taken_whose_reset_comes_before_the_others_count_is_over() {
        let usual = count(1500, 2000);
        let slack = usual.slack(ms(1000)).unwrap();
        assert!((slack + ms(1000) + MARGIN) * 105 / 100 <= ms(2000), "{slack:?}");
        assert!(slack + ms(1000) >= ms(1500 + 250), "what stops with the lease has its time: {slack:?}");
        assert_eq!(usual.candidates().collect::<Vec<_>>(), [1]);
        assert_eq!(usual.slack(ms(2000)), None, "it would come too late");
        let needed = usual.needed(ms(2000));
        assert!(count(1500, needed.as_millis() as u64).slack(ms(2000)).is_some(), "{needed:?}");
        assert!(count(1500, needed.as_millis() as u64 - 101).slack(ms(2000)).is_none(), "{needed:?}");

        let patient = count(60_000, 70_000);
        let all: Vec<u32> = patient.candidates().collect();
        assert_eq!((all[0], all[32], all[33], all.last()), (33, 1, 34, Some(&66)));
        for seconds in all {
            let timeout = Duration::from_secs(seconds.into());
            let slack = patient.slack(timeout).unwrap();
            assert!((slack + timeout + MARGIN) * 105 / 100 <= ms(70_000));
            assert!(slack + timeout >= ms(60_300), "nobody is reset who stops with the lease: {seconds} s");
        }
    }

    /// Feeds a device as the keeper does, which looks at the times that it was given. A majority acknowledges all beats that were sent until `heard`, and
    /// what must not run twice is there until `left`. Answers when the device was last fed before the time `end`.
    fn last_fed(heard: Duration, left: Duration, end: Duration) -> Duration {
        let terms = Terms { lease: ms(1500), fence: ms(2000) };
        let mut feeder = Feeder::new(Count { terms, beat: ms(50) }, ms(1000)).unwrap();
        let (mut now, mut last) = (ms(0), ms(0));
        while now < end {
            let step = feeder.step(Some(now.min(heard) + terms.lease), || now < left, now);
            if step.feeds {
                last = now;
            }
            now += step.wait;
        }
        last
    }

    #[test]
    fn it_is_fed_while_beats_are_acknowledged_and_again_when_nothing_is_left() {
        let (second, never) = (ms(1000), Duration::MAX);
        let last = last_fed(10 * second, never, 10 * second);
        assert!(last >= 10 * second - ms(180), "{last:?}");
        // Nobody hears the host any more, and something doesn't stop.
        let last = last_fed(10 * second, never, 100 * second);
        assert!(last < 10 * second + ms(805), "the reset would come too late: {last:?}");
        assert!(last >= 10 * second + ms(750), "what stops by itself has no time for it: {last:?}");
        // All stops in time.
        let last = last_fed(10 * second, 10 * second + ms(1550), 100 * second);
        assert!(last >= 100 * second - ms(180), "{last:?}");
    }

    #[test]
    fn a_feeder_whose_host_was_given_other_times_goes_on_feeding_while_beats_are_acknowledged() {
        let feeds = |held_for| {
            let mut feeder = Feeder::new(count(60_000, 70_000), ms(33_000)).unwrap();
            feeder.follow(held_for);
            // A beat was acknowledged just now, and the lease holds for 1.5 s, or for two minutes.
            let until = ms(200_000) + held_for.unwrap_or(ms(60_000));
            feeder.step(Some(until), || true, ms(200_000)).feeds
        };
        assert!(feeds(None) && feeds(Some(ms(1500))) && feeds(Some(ms(60_000))) && feeds(Some(ms(120_000))));
    }

    #[test]
    fn without_a_lease_it_is_fed_if_nothing_is_left_and_time_that_was_slept_has_passed() {
        let mut feeder = Feeder::new(count(1500, 2000), ms(1000)).unwrap();
        assert!(feeder.step(None, || false, ms(1000)).feeds);
        assert!(!feeder.step(None, || false, ms(1050)).feeds, "it isn't due");
        assert!(!feeder.step(None, || true, ms(3000)).feeds);
        assert!(feeder.step(Some(ms(4500)), || true, ms(3050)).feeds);
        assert!(!feeder.step(Some(ms(4500)), || true, ms(99_000)).feeds);
    }
}
