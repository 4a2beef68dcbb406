//! The states that pages of lists were cut from: kept for as long as their readers have for the next page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::{Revision, State};
use tokio::time::Instant;

/// How long a client has to ask for the next page, as with upstream's compaction.
const KEPT: Duration = Duration::from_secs(300);
/// So many states are kept at most. They share all that is the same in them.
const MOST: usize = 256;

/// The states of lists that aren't read to their end, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<VecDeque<Page>>);

#[derive(Debug)]
struct Page {
    until: Instant,
    state: Arc<State>,
}

impl Pages {
    /// Keeps a state from now on.
    #[allow(clippy::disallowed_methods, reason = "pages have a time to live, at the driver's edge")]
    pub(super) fn keep(&self, state: &Arc<State>) {
        let now = Instant::now();
        let mut pages = self.current(now);
        pages.retain(|page| page.state.revision() != state.revision());
        if pages.len() >= MOST {
            pages.pop_front();
        }
        pages.push_back(Page { until: now + KEPT, state: state.clone() });
    }

    /// The state of a revision, if it is kept.
    #[allow(clippy::disallowed_methods, reason = "pages have a time to live, at the driver's edge")]
    pub(super) fn at(&self, revision: Revision) -> Option<Arc<State>> {
        let pages = self.current(Instant::now());
        pages.iter().find(|page| page.state.revision() == revision).map(|page| page.state.clone())
    }

    fn current(&self, now: Instant) -> MutexGuard<'_, VecDeque<Page>> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while pages.front().is_some_and(|page| page.until <= now) {
            pages.pop_front();
        }
        pages
    }
}
