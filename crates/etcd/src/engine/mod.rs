//! etcd as the engine: the whole cluster's state lies in an etcd, and this process shows it as every store does.
//!
//! The state in memory is etcd's as its watch tells it ([`follow`]), from where history begins ([`load`]). A
//! write goes to etcd and is answered once the state shows it. Leadership is a lease in etcd ([`election`]).

mod config;
mod election;
mod follow;
mod history;
mod keys;
mod load;
mod mirror;
mod reads;
mod refusal;
mod requests;
mod translate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::tasks::SpawnIn;
use futures::future::BoxFuture;
use store::{Error, KeyRange, Leadership, LeaseId, Revision, State, Store, Txn, TxnResponse, Watcher};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::info_span;

use self::election::{Election, Voice};
use self::follow::Follower;
use self::keys::Keys;
use self::translate::revision;
use crate::Client;
use crate::proto::{DeleteRangeRequest, PutRequest};

pub use config::{Config, EngineError};

/// Before something that failed is tried again: often enough that nobody notices the end of an etcd's election.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log says that etcd isn't reached yet: often enough for somebody that watches a start.
const COMPLAIN: Duration = Duration::from_secs(5);

/// The cluster's state in an etcd. Dropping it ends this member at once, as a crash would;
/// [`shutdown`](Engine::shutdown) ends it in peace.
///
/// A change whose answer is lost is answered [`Error::Unavailable`]: it may or may not have happened, as with
/// every client of etcd. It is never made twice.
#[derive(Debug)]
pub struct Engine {
    client: Client,
    keys: Keys,
    request_timeout: Duration,
    states: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    reads: mpsc::UnboundedSender<reads::Waiting>,
    syncing: AsyncMutex<()>,
    leave: watch::Sender<bool>,
    ended: watch::Receiver<Option<EngineError>>,
    election: Mutex<Option<JoinSet<()>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Engine {
    /// Starts a member: waits until etcd can be reached, reads everything, follows it, and stands for election.
    ///
    /// # Errors
    /// What waiting doesn't mend: [`EngineError`], but for [`EngineError::Unreachable`].
    pub async fn start(config: Config) -> Result<Arc<Self>, EngineError> {
        let keys = Keys::new(&config.prefix);
        let client = Client::of(config.endpoints.clone(), config.tls.clone());
        let mut complaints = tokio::time::interval(COMPLAIN);
        let (mirror, etcd, newest) = loop {
            let problem = match begin(&client, &config, &keys).await {
                Ok(begun) => break begun,
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            tokio::select! {
                biased;
                _ = complaints.tick() => tracing::warn!("waiting for etcd: {problem}"),
                () = tokio::time::sleep(PAUSE) => {}
            }
            client.move_on().await;
        };
        let (states, mut seen_states) = watch::channel(Arc::new(mirror.state.clone()));
        let (head, seen_head) = watch::channel(None);
        let (leadership, seen_leadership) = watch::channel(Leadership::default());
        let (ended, seen_ended) = watch::channel(None);
        let (leave, left) = watch::channel(false);
        let (reads, waiting) = mpsc::unbounded_channel();
        let name = config.name.clone();
        let request_timeout = config.request_timeout;
        let mut tasks = JoinSet::new();
        let follower =
            Follower { client: client.clone(), config, keys: keys.clone(), mirror, states, head, etcd };
        let leave_with = leave.clone();
        tasks.spawn_in(info_span!("follow etcd"), async move {
            let error = follower.run().await;
            tracing::error!(%error, "etcd can't be followed any more");
            // A host that can't follow must not lead: it leaves first of all, so that nobody hears of the end while it
            // still leads.
            leave_with.send_replace(true);
            ended.send_replace(Some(error));
        });
        tasks.spawn_in(info_span!("reads of etcd"), reads::run(client.clone(), keys.clone(), waiting));
        // What etcd held at the start is shown before anybody looks.
        let mut early_end = seen_ended.clone();
        tokio::select! {
            _ = seen_states.wait_for(|state| state.revision() >= newest) => {}
            _ = early_end.wait_for(Option::is_some) => {}
        }
        if let Some(error) = seen_ended.borrow().clone() {
            return Err(error);
        }
        // Not before: a leader begins with what its state shows, and would decide from an old one.
        let election = Election {
            voice: Voice { client: client.clone(), keys: keys.clone() },
            name: name.clone(),
            head: seen_head,
            leadership,
            leave: left,
        };
        let mut elections = JoinSet::new();
        elections.spawn_in(info_span!("election on etcd"), election.run());
        let engine = Arc::new(Engine {
            client,
            keys,
            request_timeout,
            states: seen_states,
            leadership: seen_leadership,
            reads,
            syncing: AsyncMutex::default(),
            leave,
            ended: seen_ended,
            election: Mutex::new(Some(elections)),
            tasks: Mutex::new(tasks),
        });
        engine
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn_in(info_span!("compact etcd"), history::keep_short(Arc::downgrade(&engine)));
        tracing::info!(target: "timeline", what = "store-caught-up", subject = &*name);
        Ok(engine)
    }

    /// Tries an etcd out: whether it can be reached and used, and holds nothing of another cluster's. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn check(config: &Config) -> Result<(), EngineError> {
        const TRIES: usize = 3;
        let keys = Keys::new(&config.prefix);
        let mut outcome = Err(EngineError::Unreachable("no endpoint was given".into()));
        // Why a connection ended may get lost on the way: asked more than once, most servers say it.
        for _ in 0..TRIES {
            let client = Client::of(config.endpoints.clone(), config.tls.clone());
            let late = |_| EngineError::Unreachable("it doesn't answer".into());
            let tried = load::look(&client, config, &keys);
            outcome = timeout(config.request_timeout, tried).await.map_err(late).flatten().map(drop);
            if !outcome.as_ref().is_err_and(EngineError::may_pass) {
                break;
            }
        }
        outcome
    }

    /// Deletes everything of the cluster from etcd.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] and its like; [`EngineError::OtherCluster`] where there is another's.
    pub async fn remove(config: &Config) -> Result<(), EngineError> {
        Engine::check(config).await?;
        let client = Client::of(config.endpoints.clone(), config.tls.clone());
        let (key, range_end) = Keys::new(&config.prefix).all();
        let question = DeleteRangeRequest { key, range_end, prev_kv: false };
        let late = |_| EngineError::Unreachable("it doesn't answer".into());
        let done = timeout(config.request_timeout, client.delete_range(question)).await.map_err(late)?;
        done.map(drop).map_err(|status| EngineError::of(status, &config.prefix))
    }

    /// Waits until the member can't go on, and says why. The process should end then, and start anew.
    pub async fn failed(&self) -> EngineError {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => EngineError::Closed,
        }
    }

    /// Ends the member in peace: if it led, another one leads at once. Callers who still wait get
    /// [`Error::Closed`], watches end.
    pub async fn shutdown(&self) {
        self.leave.send_replace(true);
        let election = self.election.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut election) = election {
            election.join_next().await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

type Begun = (mirror::Mirror, u64, Revision);

/// Reads everything, and finds out how far etcd is.
async fn begin(client: &Client, config: &Config, keys: &Keys) -> Result<Begun, EngineError> {
    let work = async {
        let etcd = load::claim(client, config, keys).await?.etcd;
        let mirror = load::load(client, config, keys).await?;
        // A write of our own, as others' revisions aren't told.
        let put = PutRequest { key: keys.sync(), ..PutRequest::default() };
        let mark = client.put(put).await.map_err(|status| EngineError::of(status, &config.prefix))?;
        Ok((mirror, etcd, revision(mark.header.as_ref())))
    };
    // Reading much may take long, but a member that says nothing at all is given up.
    let silent = |_| EngineError::Unreachable("it doesn't answer".into());
    timeout(config.request_timeout.max(Duration::from_secs(60)), work).await.map_err(silent)?
}

impl Store for Engine {
    fn snapshot(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<State>, Error>> {
        Box::pin(self.in_time(self.linearized()))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, Error>> {
        Box::pin(async move { self.in_time(self.carry_out(&txn)).await })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> Result<Watcher, Error> {
        Watcher::new(self.states.clone(), range, from)
    }

    fn states(&self) -> watch::Receiver<Arc<State>> {
        self.states.clone()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.in_time(self.forget(revision)))
    }

    fn grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId, Error>> {
        Box::pin(self.in_time(self.make_lease(ttl_seconds)))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.in_time(self.prolong(lease)))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.in_time(self.end_lease(lease)))
    }
}
