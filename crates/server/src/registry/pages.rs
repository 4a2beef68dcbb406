//! The states that pages of lists were cut from: kept for as long as their readers have for the next page, unless what has
//! changed since then is more than the store keeps of its history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::{HISTORY_BYTES, Revision, State};

/// How long a client has to ask for the next page, as with upstream's compaction.
const KEPT: Duration = Duration::from_secs(300);
/// The most states that are kept, one a revision at which a list began. They share all that is the same in them.
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
    /// Keeps a state from `now` on; `newest` says what has changed since the others.
    pub(super) fn keep(&self, state: &State, newest: &State, now: Instant) {
        let mut pages = self.current(now, newest);
        pages.retain(|page| page.state.revision() != state.revision());
        if pages.len() >= MOST {
            pages.pop_front();
        }
        pages.push_back(Page { until: now + KEPT, state: Arc::new(state.without_history()) });
    }

    /// The state of a revision, if it is kept at `now`.
    pub(super) fn at(&self, revision: Revision, newest: &State, now: Instant) -> Option<Arc<State>> {
        let pages = self.current(now, newest);
        pages.iter().find(|page| page.state.revision() == revision).map(|page| page.state.clone())
    }

    fn current(&self, now: Instant, newest: &State) -> MutexGuard<'_, VecDeque<Page>> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An old state keeps alive what was replaced since.
        let most = newest.bearable(HISTORY_BYTES);
        let is_over = |page: &Page| {
            page.until <= now || newest.replaced_since(&page.state).is_none_or(|bytes| bytes > most)
        };
        while pages.front().is_some_and(is_over) {
            pages.pop_front();
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use store::Txn;

    use super::*;
    use crate::clock::{Edge, SystemEdge};

    #[test]
    fn a_state_is_kept_until_too_much_of_it_was_replaced() {
        let (pages, now) = (Pages::default(), SystemEdge.instant());
        let mut state = State::default();
        let part = vec![0; HISTORY_BYTES as usize / 64];
        let mut grow = |value: &[u8]| {
            state.apply(&Txn::put("k", value.to_vec())).unwrap();
            state.clone()
        };
        let old = grow(b"old");
        pages.keep(&old, &old, now);
        let mut newest = grow(&part);
        for _ in 0..60 {
            newest = grow(&part);
        }
        let page = pages.at(old.revision(), &newest, now).expect("the history isn't longer than that");
        assert_eq!(page.get(b"k").map(|kv| kv.value.bytes()), Some("old".into()));
        assert_eq!(page.history_bytes(), 0, "nobody watches from there");
        pages.keep(&newest, &newest, now);
        for _ in 0..10 {
            newest = grow(&part);
        }
        assert!(
            pages.at(old.revision(), &newest, now).is_none(),
            "it would keep more alive than the history"
        );
        assert!(pages.at(Revision(newest.revision().0 - 10), &newest, now + KEPT / 2).is_some());
        assert!(
            pages.at(Revision(newest.revision().0 - 10), &newest, now + KEPT).is_none(),
            "its time is over"
        );
    }
}
