//! The trait that every engine implements.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{Error, KeyRange, LeaseId, Metrics, Revision, State, Txn, TxnResponse, Watcher};

/// Who leads, as this member sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's name, if one is known.
    pub leader: Option<String>,
    /// The term of its election.
    pub term: u64,
    /// Whether it is this member (and it has committed an entry of its own term).
    pub is_me: bool,
}

/// The replicated map as its users see it. Cheap to clone behind an `Arc`.
pub trait Store: Send + Sync + 'static {
    /// The state as this member knows it: consistent, maybe a little behind.
    fn snapshot(&self) -> Arc<State>;

    /// The state, at least as new as every write acknowledged anywhere before the call.
    fn read(&self) -> BoxFuture<'_, Result<Arc<State>, Error>>;

    /// Carries out a transaction. Once it answers, a majority has it on disk and this member's
    /// [`snapshot`](Store::snapshot) shows it.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, Error>>;

    /// The changes within `range` from revision `from` on, each once and in order; [`Revision::ZERO`] means
    /// from now on.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history no longer reaches back to `from`.
    fn watch(&self, range: KeyRange, from: Revision) -> Result<Watcher, Error>;

    /// Follows the newest state: the value changes with every revision applied here.
    fn states(&self) -> watch::Receiver<Arc<State>>;

    /// Follows who leads.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// What it counts of its own work, where it does.
    fn metrics(&self) -> Option<&Metrics> {
        None
    }

    /// Forgets the history before `revision`.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;

    /// Makes a lease that deletes its keys unless it is kept alive every `ttl_seconds`.
    fn grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId, Error>>;

    /// Makes a lease whose number the caller chose. [`Error::LeaseExists`] where there is one of that number.
    fn grant_as(&self, lease: LeaseId, _ttl_seconds: u64) -> BoxFuture<'_, Result<(), Error>> {
        let refused =
            Error::Invalid(format!("this store numbers leases itself: it makes none of number {lease}"));
        Box::pin(std::future::ready(Err(refused)))
    }

    /// Starts the lease's time anew.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>>;

    /// Ends the lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>>;
}
