//! Time as the drill tells it.

use std::time::{Duration, Instant, SystemTime};

/// A point in time: the time since the drill began.
pub type Moment = Duration;

/// Reads the monotonic clock, and places what others dated by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    wall: SystemTime,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the drill measures real time")]
    pub(crate) fn start() -> Self {
        Clock { began: Instant::now(), wall: SystemTime::now() }
    }

    #[allow(clippy::disallowed_methods, reason = "the drill measures real time")]
    pub(crate) fn now(&self) -> Moment {
        Instant::now().duration_since(self.began)
    }

    /// The moment of a wall-clock time; the beginning for what was before it.
    pub(crate) fn moment(&self, at: SystemTime) -> Moment {
        at.duration_since(self.wall).unwrap_or_default()
    }
}

/// Milliseconds from one moment to another, negative when it was before.
pub(crate) fn offset_ms(from: Moment, to: Moment) -> i64 {
    let micros = |m: Moment| i64::try_from(m.as_micros()).unwrap_or(i64::MAX);
    let difference = micros(to).saturating_sub(micros(from));
    // To the nearest.
    (difference + difference.signum() * 500) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_rounded_and_signed() {
        let us = Duration::from_micros;
        for (from, to, ms) in [(0, 1_499, 1), (0, 1_500, 2), (1_500, 0, -2), (10_000, 10_000, 0), (0, 499, 0)]
        {
            assert_eq!(offset_ms(us(from), us(to)), ms, "{from} -> {to}");
        }
    }
}
