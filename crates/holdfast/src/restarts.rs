//! When a host that ended by itself is started again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A host that ends sooner than this after its start ended at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How many ends at once, in a row, mean that a host can't run.
pub const TRIES: u32 = 3;
/// How long one that can't run rests before it is tried again: what hinders it may be mended meanwhile.
const REST: Duration = Duration::from_secs(5);

/// What each host did lately.
#[derive(Debug, Default)]
pub struct Restarts(BTreeMap<String, Lately>);

#[derive(Debug)]
struct Lately {
    started: Instant,
    ends_at_once: u32,
    due: Option<Instant>,
}

impl Restarts {
    /// Notes that a host was started.
    pub fn started(&mut self, host: &str, now: Instant) {
        let new = || Lately { started: now, ends_at_once: 0, due: None };
        let lately = self.0.entry(host.to_owned()).or_insert_with(new);
        (lately.started, lately.due) = (now, None);
    }

    /// Notes that a host has ended and is to be started when it is [due](Self::due). The answer is how often in a
    /// row it ended at once, if that means that it can't run.
    pub fn ended(&mut self, host: &str, now: Instant) -> Option<u32> {
        let lately = self.0.get_mut(host)?;
        let at_once = now.saturating_duration_since(lately.started) < AT_ONCE;
        lately.ends_at_once = if at_once { lately.ends_at_once + 1 } else { 0 };
        let can_run = lately.ends_at_once < TRIES;
        lately.due = Some(if can_run { now } else { now + REST });
        (!can_run).then_some(lately.ends_at_once)
    }

    /// The host that is to be started next, and when.
    pub fn due(&self) -> Option<(Instant, String)> {
        self.0.iter().filter_map(|(host, lately)| Some((lately.due?, host.clone()))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_ends_at_once_again_and_again_rests() {
        #[allow(clippy::disallowed_methods)] // Any moment will do.
        let mut now = Instant::now();
        let mut restarts = Restarts::default();
        for host in ["n1", "n2"] {
            restarts.started(host, now);
        }
        // Others' ends don't count, nor do those of one that ran for a while.
        for run in [1, 1, 3, 1, 1] {
            now += Duration::from_secs(run);
            for host in ["n1", "n2"] {
                assert_eq!(restarts.ended(host, now), None, "{host}");
            }
            for host in ["n1", "n2"] {
                assert_eq!(restarts.due(), Some((now, host.to_owned())));
                restarts.started(host, now);
            }
        }
        for times in [3, 4] {
            now += Duration::from_secs(1);
            assert_eq!(restarts.ended("n2", now), Some(times));
            now += REST;
            assert_eq!(restarts.due(), Some((now, "n2".to_owned())));
            restarts.started("n2", now);
        }
        assert_eq!(restarts.due(), None);
    }
}
