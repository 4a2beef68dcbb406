//! How the time of a run is divided among its cases and their measurements.

use std::time::Duration;

use super::cases::Times;

/// No measurement counts for less: it would say nothing.
const SHORTEST: Duration = Duration::from_millis(100);
/// The warm-up's part of the time that counts.
const WARM_UP: f64 = 0.25;

/// What a case takes, by estimate. The estimates divide the time; what a round really took decides about the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds of one measurement besides its load: start, fill, end.
    pub fixed: f64,
    /// Whether it has a load, which may be shorter or longer.
    pub has_load: bool,
    /// How many rounds are worth their time.
    pub rounds: usize,
}

impl Cost {
    /// The shortest round of this many sides.
    pub fn shortest(&self, sides: usize) -> Duration {
        Duration::from_secs_f64(self.fixed * sides as f64)
    }

    /// What all rounds take if each measurement counts for as long as it may.
    fn whole(&self, sides: usize, longest: Duration) -> f64 {
        let load = if self.has_load { longest.as_secs_f64() * (1.0 + WARM_UP) } else { 0.0 };
        (self.fixed + load) * (self.rounds * sides) as f64
    }
}

/// The first case's share of what is left, in proportion to what each would take.
pub fn share(left: Duration, costs: &[Cost], sides: usize, longest: Duration) -> Duration {
    let all: f64 = costs.iter().map(|cost| cost.whole(sides, longest)).sum();
    costs.first().map_or(Duration::ZERO, |first| left.mul_f64(first.whole(sides, longest) / all))
}

/// How long each measurement of a case counts, so that all of them fit into its share.
pub fn times(share: Duration, cost: Cost, sides: usize, longest: Duration) -> Times {
    let each = share.as_secs_f64() / (cost.rounds * sides) as f64 - cost.fixed;
    let counted = Duration::from_secs_f64((each / (1.0 + WARM_UP)).max(0.0));
    let counted = counted.max(SHORTEST).min(longest);
    Times { warm_up: counted.mul_f64(WARM_UP), counted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Cost = Cost { fixed: 1.0, has_load: true, rounds: 3 };
    const FILL: Cost = Cost { fixed: 20.0, has_load: false, rounds: 1 };

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_shares_of_all_cases_are_what_was_given() {
        let costs = [LOAD, FILL, LOAD, LOAD];
        for given in [1.0, 60.0, 540.0] {
            let mut left = s(given);
            for n in 0..costs.len() {
                let share = share(left, &costs[n..], 3, s(4.0));
                assert!(share > Duration::ZERO && share <= left, "{share:?} of {left:?}");
                left -= share;
            }
            assert!(left < s(0.001), "{left:?} of {given} s was given to none");
        }
    }

    #[test]
    fn measurements_fit_into_their_share_and_are_no_longer_than_they_may() {
        // (share, counted): 9 measurements with a second of their own each.
        for (given, counted) in [(9.0 * 3.5, 2.0), (9.0 * 100.0, 4.0), (9.0, 0.1), (0.0, 0.1)] {
            let times = times(s(given), LOAD, 3, s(4.0));
            assert_eq!(times.counted, s(counted), "{given}");
            assert_eq!(times.warm_up, s(counted / 4.0), "{given}");
        }
    }
}
