//! The engine without replication or disk: for tests and for trying things out.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, ready};
use tokio::sync::watch;

use crate::{Error, KeyRange, Leadership, LeaseId, Revision, State, Store, Txn, TxnResponse, Watcher};

/// A store of one process that forgets everything when it ends. Always its own leader.
#[derive(Debug)]
pub struct Memory {
    last_lease: Mutex<LeaseId>,
    states: watch::Sender<Arc<State>>,
    leadership: watch::Sender<Leadership>,
}

impl Default for Memory {
    fn default() -> Self {
        let leadership = Leadership { leader: Some("memory".into()), term: 1, is_me: true };
        Memory {
            last_lease: Mutex::new(LeaseId::NONE),
            states: watch::Sender::new(Arc::new(State::default())),
            leadership: watch::Sender::new(leadership),
        }
    }
}

impl Memory {
    /// Lets it lose its leadership to nobody, and win it again.
    #[cfg(test)]
    pub(crate) fn set_leading(&self, leading: bool) {
        self.leadership.send_modify(|leadership| leadership.is_me = leading);
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> Result<R, Error>) -> Result<R, Error> {
        let mut result = Err(Error::Closed);
        self.states.send_if_modified(|state| {
            let mut next = State::clone(state);
            result = change(&mut next);
            let changed = result.is_ok();
            if changed {
                *state = Arc::new(next);
            }
            changed
        });
        result
    }
}

impl Store for Memory {
    fn snapshot(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<State>, Error>> {
        Box::pin(ready(Ok(self.snapshot())))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, Error>> {
        Box::pin(ready(self.change(|state| state.apply(&txn))))
    }

    fn watch(&self, range: KeyRange, from: Revision) -> Result<Watcher, Error> {
        Watcher::new(self.states.subscribe(), range, from)
    }

    fn states(&self) -> watch::Receiver<Arc<State>> {
        self.states.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(self.change(|state| {
            state.compact(revision);
            Ok(())
        })))
    }

    fn grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId, Error>> {
        let mut last = self.last_lease.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(ready(self.change(|state| {
            *last = state.free_lease(LeaseId(last.0 + 1));
            state.grant(*last, ttl_seconds);
            Ok(*last)
        })))
    }

    fn grant_as(&self, lease: LeaseId, ttl_seconds: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(self.change(|state| state.grant_as(lease, ttl_seconds))))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        let known = self.snapshot().leases().any(|(id, _)| id == lease);
        Box::pin(ready(if known { Ok(()) } else { Err(Error::LeaseNotFound(lease)) }))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(self.change(|state| state.revoke(lease))))
    }
}
