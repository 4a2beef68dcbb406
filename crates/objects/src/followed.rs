//! What is made of some of the store's objects and stays as new as a state: roles, classes, aggregated APIs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use store::{Revision, State};

/// A value made of the objects below one prefix, made anew when one of them has changed.
#[derive(Debug)]
pub struct Followed<T> {
    prefix: &'static str,
    make: fn(&State) -> T,
    /// The newest revision that it was compared with.
    seen: AtomicU64,
    value: RwLock<Arc<T>>,
}

impl<T> Followed<T> {
    /// The value as of a state.
    pub fn new(prefix: &'static str, make: fn(&State) -> T, state: &State) -> Self {
        let (seen, value) = (AtomicU64::new(state.revision().0), RwLock::new(Arc::new(make(state))));
        Followed { prefix, make, seen, value }
    }

    /// The value, at least as new as `state`; `changed` is called with a new one before anybody else sees it.
    pub fn get(&self, state: &State, changed: impl FnOnce(&T)) -> Arc<T> {
        if self.seen() < state.revision() {
            self.follow(state, changed);
        }
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seen(&self) -> Revision {
        Revision(self.seen.load(Ordering::Acquire))
    }

    fn follow(&self, state: &State, changed: impl FnOnce(&T)) {
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen();
        if seen >= state.revision() {
            return;
        }
        let is_touched = state.check_history(seen.next()).is_err()
            || state.events(seen.next()).any(|event| event.key().starts_with(self.prefix.as_bytes()));
        if is_touched {
            *value = Arc::new((self.make)(state));
            changed(&value);
        }
        // After the value: a reader of this revision must find the value that goes with it.
        self.seen.store(state.revision().0, Ordering::Release);
    }
}
