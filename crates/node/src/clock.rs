//! The two times that a decision needs: one that only moves forward, and one that people read.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A moment, as decisions see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Now {
    /// Since the agent started, unmoved by changes of the wall clock: deadlines are in this time.
    pub elapsed: Duration,
    /// The wall clock: what objects carry.
    pub wall: Timestamp,
}

/// The driver's clock: the runtime's, so that a test can let time pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods)] // the one place of the agent that reads the clock
    pub(crate) fn start() -> Self {
        Clock { started: Instant::now() }
    }

    /// The moment.
    #[allow(clippy::disallowed_methods)] // the one place of the agent that reads the clock
    pub(crate) fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: Timestamp::now() }
    }

    /// The instant at which `elapsed` will have passed.
    pub(crate) fn instant(&self, elapsed: Duration) -> Instant {
        self.started + elapsed
    }
}

/// A wall time as objects write it: RFC 3339 with whole seconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
