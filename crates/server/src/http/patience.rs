//! How long a connection of HTTP/1.1 waits for its next request: long while nothing comes, and not long once one has begun.
//! hyper has one time for both, so it is given a clock that tells them apart.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How much has come on a connection, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Adds bytes that have come.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clock of a connection. What waits by it waits no longer than `headers` once something has come.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    pub(crate) heard: Heard,
    pub(crate) headers: Duration,
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Waiting {
            clock: self.clone(),
            before: Some(self.heard.bytes()),
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
        })
    }
}

struct Waiting {
    clock: Patience,
    /// What had come when the wait began; nothing once more has.
    before: Option<u64>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.before.is_some_and(|before| before != self.clock.heard.bytes()) {
            self.before = None;
            self.sleep = Box::pin(tokio::time::sleep(self.clock.headers));
        }
        self.sleep.as_mut().poll(cx)
    }
}
