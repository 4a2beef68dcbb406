//! What callers ask of the engine: each request, until it is answered and shown, or can't be.

use std::sync::Arc;
use std::time::Duration;

use store::{Error, LeaseId, Op, Revision, State, Store, Txn, TxnResponse};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::refusal::{did_nothing, error, is_compacted};
use super::translate::{self, revision};
use super::{Engine, PAUSE};
use crate::numbers::{signed, to_etcd};
use crate::proto::{CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use crate::{Client, Status};

/// How long the state may take to show what etcd did before etcd is asked to say more.
const USUAL: Duration = Duration::from_millis(20);

impl Engine {
    /// Does what a caller wants, in time.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut leave = self.leave.subscribe();
        tokio::select! {
            biased;
            _ = leave.wait_for(|leave| *leave) => Err(Error::Closed),
            done = timeout(self.request_timeout, work) => done.unwrap_or(Err(Error::Unavailable)),
        }
    }

    /// Makes a call that changes something. It is made once; again only where it surely did nothing.
    async fn once<Q: Clone, A, C: Future<Output = Result<A, Status>>>(
        &self,
        lease: LeaseId,
        question: &Q,
        call: impl Fn(Client, Q) -> C,
    ) -> Result<A, Error> {
        loop {
            // What can't be sent has not happened: it may wait until it can.
            while let Err(status) = self.client.connected().await {
                tracing::debug!(%status, "waiting for etcd");
                tokio::time::sleep(PAUSE).await;
            }
            match call(self.client.clone(), question.clone()).await {
                Err(status) if did_nothing(&status) => tokio::time::sleep(PAUSE).await,
                done => return done.map_err(|status| error(status, lease)),
            }
        }
    }

    /// Waits until the state is as new as `revision`.
    async fn reach(&self, revision: Revision) -> Result<(), Error> {
        let mut states = self.states.clone();
        let reached = async { states.wait_for(|state| state.revision() >= revision).await.map(drop) };
        match timeout(USUAL, reached).await {
            Ok(reached) => return reached.map_err(|_| Error::Closed),
            Err(_) => tracing::trace!(%revision, "etcd's watch is behind"),
        }
        // Revisions of others, which share this etcd, aren't told. A write of our own is, and all before it.
        let _turn = self.syncing.lock().await;
        while self.snapshot().revision() < revision {
            let put = PutRequest { key: self.keys.sync(), ..PutRequest::default() };
            let written = self
                .once(LeaseId::NONE, &put, |etcd, question| async move { etcd.put(question).await })
                .await?;
            let mark = translate::revision(written.header.as_ref());
            let mut states = self.states.clone();
            states.wait_for(|state| state.revision() >= mark).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    async fn newest(&self) -> Result<Revision, Error> {
        loop {
            let (answer, answered) = oneshot::channel();
            self.reads.send(answer).map_err(|_| Error::Closed)?;
            match answered.await.map_err(|_| Error::Closed)? {
                Ok(revision) => return Ok(revision),
                Err(status) => tracing::debug!(%status, "waiting for etcd to be read"),
            }
        }
    }

    pub(super) async fn linearized(&self) -> Result<Arc<State>, Error> {
        let newest = self.newest().await?;
        self.reach(newest).await?;
        Ok(self.snapshot())
    }

    pub(super) async fn carry_out(&self, txn: &Txn) -> Result<TxnResponse, Error> {
        txn.check()?;
        let request = translate::request(&self.keys, txn);
        let lease = |op: &Op| match op {
            Op::Put { lease, .. } => Some(*lease).filter(|lease| lease.is_some()),
            _ => None,
        };
        let lease = txn.success.iter().chain(&txn.failure).find_map(lease).unwrap_or_default();
        let answer =
            self.once(lease, &request, |etcd, question| async move { etcd.txn(question).await }).await?;
        let response = translate::response(&self.keys, txn, answer)?;
        self.reach(response.revision).await?;
        Ok(response)
    }

    pub(super) async fn forget(&self, asked: Revision) -> Result<(), Error> {
        let state = self.snapshot();
        let revision_to = asked.min(state.revision());
        if revision_to <= state.compacted() {
            return Ok(());
        }
        // All members learn of it first: one that starts from here must find the history that begins here.
        let put = PutRequest {
            key: self.keys.compacted(),
            value: revision_to.to_string().into(),
            ..PutRequest::default()
        };
        let told =
            self.once(LeaseId::NONE, &put, |etcd, question| async move { etcd.put(question).await }).await?;
        self.reach(revision(told.header.as_ref())).await?;
        let compaction = CompactionRequest { revision: to_etcd(revision_to), physical: false };
        match self.client.compact(compaction).await {
            // Somebody else, or etcd itself, has forgotten more already.
            Err(status) if is_compacted(&status) => Ok(()),
            done => done.map(drop).map_err(|status| error(status, LeaseId::NONE)),
        }
    }

    pub(super) async fn make_lease(&self, ttl: u64) -> Result<LeaseId, Error> {
        let question = LeaseGrantRequest { ttl: signed(ttl), id: 0 };
        let granted = self
            .once(LeaseId::NONE, &question, |etcd, question| async move { etcd.lease_grant(question).await })
            .await?;
        let lease = LeaseId(granted.id);
        // By this key all members know of it; it ends with it.
        let put = PutRequest {
            key: self.keys.lease(lease),
            value: granted.ttl.to_string().into(),
            lease: lease.0,
            ..PutRequest::default()
        };
        let told = self.once(lease, &put, |etcd, question| async move { etcd.put(question).await }).await?;
        self.reach(revision(told.header.as_ref())).await?;
        Ok(lease)
    }

    pub(super) async fn end_lease(&self, lease: LeaseId) -> Result<(), Error> {
        let question = LeaseRevokeRequest { id: lease.0 };
        let ended = self
            .once(lease, &question, |etcd, question| async move { etcd.lease_revoke(question).await })
            .await?;
        self.reach(revision(ended.header.as_ref())).await
    }

    pub(super) async fn prolong(&self, lease: LeaseId) -> Result<(), Error> {
        loop {
            match self.client.lease_keep_alive(lease.0).await {
                Ok(kept) if kept.ttl > 0 => return Ok(()),
                Ok(_) => return Err(Error::LeaseNotFound(lease)),
                // To say it twice does no harm.
                Err(status) => tracing::debug!(%status, %lease, "a lease is kept alive once more"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
