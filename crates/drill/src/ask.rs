//! The clocks: what an outage is, as a function of asks.
//!
//! Asks overlap, so their order is the order in which they were sent: an ask that hangs for its whole second is
//! a failure of the moment it was sent, not of the moment its caller gave up.

use crate::Moment;
use std::ops::Range;
use std::time::Duration;

/// One ask, as a user could have made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// When it was begun.
    pub sent: Moment,
    /// When it was answered or given up.
    pub done: Moment,
    /// It was answered, and well.
    pub ok: bool,
}

/// What a series of asks says about a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// From the cut to the first answer after which nothing failed for the quiet time; zero where no ask
    /// failed before that answer: nobody was left without one. None where it did not come to that.
    pub outage: Option<Duration>,
    /// Asks without a good answer.
    pub failed: usize,
    /// All asks since the cut, those in flight at the cut included.
    pub asked: usize,
    /// The longest that an ask with a good answer took.
    pub slowest: Duration,
}

/// Measures a series. `seen_until` is the moment up to which every ask sent is known to have ended.
pub fn measure(asks: &[Ask], cut: Moment, quiet: Duration, seen_until: Moment) -> Outage {
    let since: Vec<&Ask> = asks.iter().filter(|a| a.done > cut).collect();
    let good = since.iter().filter(|a| a.ok);
    let first_failure = since.iter().filter(|a| !a.ok).map(|a| a.sent).min();
    let until = |answer: &Ask| match first_failure {
        Some(sent) if sent <= answer.sent => answer.done - cut,
        _ => Duration::ZERO,
    };
    Outage {
        outage: steady(asks, cut, quiet, seen_until).map(until),
        failed: since.iter().filter(|a| !a.ok).count(),
        asked: since.len(),
        slowest: good.map(|a| a.done.saturating_sub(a.sent)).max().unwrap_or_default(),
    }
}

/// The asks of a part of a drill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Asks without a good answer.
    pub(crate) failed: usize,
    /// All asks.
    pub(crate) asked: usize,
    /// The longest that an ask with a good answer took.
    pub(crate) slowest: Duration,
}

/// Counts the asks that were sent in a time, its end excluded.
pub(crate) fn tally<'a>(asks: impl IntoIterator<Item = &'a Ask>, time: Range<Moment>) -> Tally {
    let sent = asks.into_iter().filter(|ask| time.contains(&ask.sent));
    sent.fold(Tally::default(), |all, ask| Tally {
        failed: all.failed + usize::from(!ask.ok),
        asked: all.asked + 1,
        slowest: if ask.ok { all.slowest.max(ask.done.saturating_sub(ask.sent)) } else { all.slowest },
    })
}

/// When the first answer came after which nothing failed for `quiet`.
pub(crate) fn steady_from(asks: &[Ask], cut: Moment, quiet: Duration, seen_until: Moment) -> Option<Moment> {
    steady(asks, cut, quiet, seen_until).map(|answer| answer.done)
}

fn steady(asks: &[Ask], cut: Moment, quiet: Duration, seen_until: Moment) -> Option<&Ask> {
    let mut failures: Vec<Moment> = asks.iter().filter(|a| !a.ok && a.done > cut).map(|a| a.sent).collect();
    failures.sort_unstable();
    let stays = |answer: &Ask| {
        let next = failures.partition_point(|sent| *sent <= answer.sent);
        failures.get(next).is_none_or(|sent| *sent > answer.done + quiet)
    };
    let answers = asks.iter().filter(|a| a.ok && a.done > cut && a.done + quiet <= seen_until);
    answers.filter(|a| stays(a)).min_by_key(|a| a.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(5);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// One ask every 50 ms from `from` to `to` that takes `takes`.
    fn every_50(from: u64, to: u64, takes: u64, ok: bool) -> Vec<Ask> {
        (from..to).step_by(50).map(|t| Ask { sent: ms(t), done: ms(t + takes), ok }).collect()
    }

    fn measured(asks: &[Ask], cut: u64, seen_until: u64) -> (Option<u64>, usize, usize) {
        let outage = measure(asks, ms(cut), QUIET, ms(seen_until));
        (outage.outage.map(|d| d.as_millis() as u64), outage.failed, outage.asked)
    }

    #[test]
    fn clean_outage() {
        // Hangs from 1000 to 1400 and is given up a second later; what was sent from 1400 on is answered.
        let asks =
            [every_50(0, 1000, 5, true), every_50(1000, 1400, 1000, false), every_50(1400, 9000, 7, true)];
        assert_eq!(measured(&asks.concat(), 999, 9000), (Some(408), 8, 160));
    }

    #[test]
    fn asks_are_counted_to_the_time_they_were_sent_in() {
        let asks =
            [every_50(0, 1000, 5, true), every_50(1000, 1200, 900, false), every_50(1200, 2000, 30, true)];
        let of = |from, to| tally(&asks.concat(), ms(from)..ms(to));
        assert_eq!(of(0, 1000), Tally { failed: 0, asked: 20, slowest: ms(5) });
        assert_eq!(of(1000, 1200), Tally { failed: 4, asked: 4, slowest: ms(0) });
        assert_eq!(of(1150, 2000), Tally { failed: 1, asked: 17, slowest: ms(30) });
    }

    #[test]
    fn asks_in_flight_at_the_cut_count() {
        let before = Ask { sent: ms(990), done: ms(1990), ok: false };
        let asks = [every_50(0, 950, 5, true), vec![before], every_50(1000, 9000, 5, true)].concat();
        assert_eq!(measured(&asks, 1000, 9000), (Some(5), 1, 161));
        let answered = Ask { sent: ms(990), done: ms(1250), ok: true };
        let late = [vec![answered], every_50(1250, 9000, 100, true)].concat();
        assert_eq!(measured(&late, 1000, 9000), (Some(0), 0, 156), "late, but nobody was turned away");
        assert_eq!(measure(&late, ms(1000), QUIET, ms(9000)).slowest, ms(260));
    }

    #[test]
    fn what_ended_before_the_cut_does_not_count() {
        let asks = [every_50(0, 900, 5, false), every_50(1000, 9000, 5, true)].concat();
        assert_eq!(measured(&asks, 950, 9000), (Some(0), 0, 160));
    }

    #[test]
    fn flapping_starts_the_clock_again() {
        let blip = |at: u64| vec![Ask { sent: ms(at), done: ms(at + 10), ok: false }];
        let up = every_50(1000, 20_000, 5, true);
        for (failures, expected) in [
            (vec![], 0),
            // Within the quiet time after the first answer.
            (blip(3020), 3055 - 1000),
            ([blip(3020), blip(6020)].concat(), 6055 - 1000),
            // After it: counted as failed, and no outage of the cut's.
            (blip(9020), 0),
        ] {
            let count = failures.len();
            let asks = [up.clone(), failures].concat();
            let (outage, failed, _) = measured(&asks, 1000, 20_000);
            assert_eq!((outage, failed), (Some(expected), count));
        }
    }

    #[test]
    fn never_answered_and_not_yet_known() {
        assert_eq!(measured(&[], 0, 60_000), (None, 0, 0));
        assert_eq!(measured(&every_50(0, 10_000, 1000, false), 100, 60_000), (None, 200, 200));
        let up = every_50(1000, 4000, 5, true);
        assert_eq!(measured(&up, 1000, 4000).0, None, "three good seconds are not five");
        let every_third_fails: Vec<Ask> = every_50(0, 60_000, 5, true)
            .into_iter()
            .enumerate()
            .map(|(i, a)| Ask { ok: i % 3 > 0, ..a })
            .collect();
        assert_eq!(measured(&every_third_fails, 0, 60_000).0, None);
    }

    #[test]
    fn an_ask_sent_earlier_that_fails_later_is_of_the_outage() {
        let hung = Ask { sent: ms(1000), done: ms(2000), ok: false };
        let asks = [vec![hung], every_50(1050, 9000, 5, true)].concat();
        assert_eq!(measured(&asks, 1000, 9000).0, Some(55));
    }
}
