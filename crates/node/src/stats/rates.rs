//! How much of the processors something takes, from what it has had of them at two moments.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::runtime::Which;

/// A rate is taken anew after so long, as cAdvisor counts (`housekeeping-interval`).
const WINDOW: Duration = Duration::from_secs(10);

/// Whose rate it is: a container's, or the machine's.
type Whose = Option<Which>;

/// The rates, kept until who asks comes again.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<Whose, Sample>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at: Duration,
    cpu: Duration,
    /// Billionths of a processor.
    rate: u64,
}

impl Rates {
    /// Billionths of a processor, when `cpu` is had at `now` by what began `age` ago.
    pub(crate) fn of(&self, whose: Whose, cpu: Duration, age: Duration, now: Duration) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(all.get(&whose).copied(), cpu, age, now);
        all.insert(whose, next);
        next.rate
    }

    /// Forgets containers that aren't there any more.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&Which) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|whose, _| whose.as_ref().is_none_or(&is_there));
    }
}

fn next(last: Option<Sample>, cpu: Duration, age: Duration, now: Duration) -> Sample {
    let (had, over) = match last {
        Some(last) if now.saturating_sub(last.at) < WINDOW => return last,
        Some(last) => (cpu.saturating_sub(last.cpu), now.saturating_sub(last.at)),
        // All that is known of the first one is its whole life.
        None => (cpu, age),
    };
    let rate = had.as_nanos().saturating_mul(1_000_000_000).checked_div(over.as_nanos()).unwrap_or(0);
    Sample { at: now, cpu, rate: u64::try_from(rate).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (rates, second) = (Rates::default(), Duration::from_secs);
        let of = |cpu: u64, now: u64| rates.of(None, second(cpu), second(100), second(now));
        assert_eq!(of(50, 1000), 500_000_000, "of its whole life");
        assert_eq!(of(59, 1009), 500_000_000, "too soon for another");
        assert_eq!(of(70, 1010), 2_000_000_000, "two processors");
        assert_eq!(of(70, 1020), 0);
        let which = |name: &str| Which { uid: "u".into(), container: name.into(), attempt: 0 };
        rates.of(Some(which("a")), second(1), second(1), second(1));
        rates.of(Some(which("b")), second(1), second(1), second(1));
        rates.keep_only(|which| which.container == "a");
        assert_eq!(rates.0.lock().unwrap().len(), 2, "the machine's, and that of a");
        assert_eq!(next(None, second(1), second(0), second(0)).rate, 0);
    }
}
