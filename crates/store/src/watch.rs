//! A watch: a place in the history that moves on.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Error, Event, KeyRange, Revision, State};

/// Yields the changes within a range, each once and in order. It reads the history that each state
/// carries, so a slow watcher costs nobody anything; if it falls behind a compaction it gets an error that says so.
#[derive(Debug)]
pub struct Watcher {
    range: KeyRange,
    next: Revision,
    states: watch::Receiver<Arc<State>>,
}

impl Watcher {
    /// A watcher of `range` whose first event is of revision `from` or later ([`Revision::ZERO`]: after the newest one).
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history no longer reaches back to `from`.
    pub fn new(states: watch::Receiver<Arc<State>>, range: KeyRange, from: Revision) -> Result<Self, Error> {
        let next = {
            let state = states.borrow();
            if from == Revision::ZERO {
                state.revision().next()
            } else {
                state.check_history(from)?;
                from
            }
        };
        Ok(Watcher { range, next, states })
    }

    /// The revision before which this watcher has seen everything.
    pub fn next_revision(&self) -> Revision {
        self.next
    }

    /// Waits for the next changes: all that are known, oldest first, never none. The state is the one
    /// that the last of them led to.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history was cut past this watcher; [`Error::Closed`] if the store ended.
    pub async fn changes(&mut self) -> Result<(Vec<Event>, Arc<State>), Error> {
        loop {
            let state = self.states.borrow_and_update().clone();
            if state.revision() >= self.next {
                state.check_history(self.next)?;
                let events: Vec<Event> =
                    state.events(self.next).filter(|e| self.range.contains(e.key())).cloned().collect();
                self.next = state.revision().next();
                if !events.is_empty() {
                    return Ok((events, state));
                }
            }
            self.states.changed().await.map_err(|_| Error::Closed)?;
        }
    }
}
