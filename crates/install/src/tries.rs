//! How often somebody with a token that opens nothing has it looked for anew.

use std::time::{Duration, Instant};

/// This many within that time, from all machines together. A machine that comes with a token made a moment ago on another host is one of
/// few; who guesses secrets of 82 bits has no use for more either.
const MOST: usize = 20;
const WITHIN: Duration = Duration::from_secs(10);

/// Those of late whose tokens this host didn't know. Asking the cluster costs all members something, and a token that is good
/// needs none of these: so who comes with wrong ones keeps nobody out who has a right one.
#[derive(Debug, Default)]
pub struct Tries(Vec<Instant>);

impl Tries {
    /// Whether one more may have its token looked for; it is counted.
    pub fn one_more(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now.saturating_duration_since(*at) < WITHIN);
        let may = self.0.len() < MOST;
        if may {
            self.0.push(now);
        }
        may
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Some instant to count from.
mod tests {
    use super::*;

    #[test]
    fn only_so_many_unknown_tokens_are_looked_for() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((0..100).filter(|_| tries.one_more(start)).count(), MOST);
        assert!(!tries.one_more(after(9)));
        assert!(tries.one_more(after(10)), "those are forgotten");
        assert_eq!(tries.0.len(), 1, "and those that were refused don't count");
    }
}
