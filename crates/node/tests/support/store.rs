//! The store as an agent sees it, whose majority may be away.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, ready};
use store::{
    Error, KeyRange, Leadership, LeaseId, Memory, Revision, State, Store, Txn, TxnResponse, Watcher,
};
use tokio::sync::watch;

/// A store in memory. While `away` says so nothing newer than its snapshot can be read, as without a majority.
pub struct AgentStore {
    pub store: Arc<Memory>,
    pub away: watch::Sender<bool>,
}

impl Store for AgentStore {
    fn snapshot(&self) -> Arc<State> {
        self.store.snapshot()
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<State>, Error>> {
        if *self.away.borrow() {
            return ready(Err(Error::Unavailable)).boxed();
        }
        self.store.read()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, Error>> {
        self.store.txn(txn)
    }

    fn watch(&self, range: KeyRange, from: Revision) -> Result<Watcher, Error> {
        self.store.watch(range, from)
    }

    fn states(&self) -> watch::Receiver<Arc<State>> {
        self.store.states()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.store.leadership()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.store.compact(revision)
    }

    fn grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId, Error>> {
        self.store.grant(ttl_seconds)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        self.store.revoke(lease)
    }
}
