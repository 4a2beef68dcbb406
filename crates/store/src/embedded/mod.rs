//! The embedded engine: Raft, its log and its snapshots in this process.
//!
//! [`core`] decides without I/O; [`driver`] runs it on a thread and gives it the time; [`keeper`] has the
//! disk, [`transport`] the connections.

pub(crate) mod codec;
mod command;
mod config;
mod core;
mod disk;
mod driver;
mod error;
mod folder;
mod image;
mod keeper;
mod log;
mod machine;
mod membership;
mod opening;
mod outbox;
pub mod parts;
mod restore;
mod sessions;
mod transport;
mod wire;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info_span;

use self::command::{Command, Response};
use self::core::Core;
use self::driver::{Driver, Event};
use self::folder::Claim;
use self::keeper::Keeper;
use self::membership::{MemberChange, Membership};
use self::opening::{bind, open, read, settings};
use self::wire::Caller;
use crate::{
    Error, KeyRange, Leadership, LeaseId, Member, MemberId, Metrics, Op, Revision, Sealing, State, Store,
    Txn, TxnResponse, Watcher,
};

pub use self::config::{Beats, Config, Limits, MOST_PEERS, Start, Timing};
pub use self::error::StartError;
pub use self::restore::FirstMember;

/// The replicated store within this process. Dropping it ends the member at once, as a crash would;
/// [`shutdown`](Embedded::shutdown) ends it in peace.
pub struct Embedded {
    name: String,
    id: MemberId,
    members: watch::Receiver<Arc<Membership>>,
    removed: watch::Receiver<bool>,
    request_bytes: usize,
    waiting: Semaphore,
    events: Sender<Event>,
    states: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    metrics: Arc<Metrics>,
    sealing: Sealing,
    running: Mutex<Option<Running>>,
}

/// What ends with the member.
struct Running {
    threads: Vec<JoinHandle<()>>,
    connections: JoinSet<()>,
    _lock: File,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Starts a member: reads its folder, listens for the others and takes part.
    ///
    /// # Errors
    /// [`StartError`]: the folder is another's, in use or damaged; the port is taken.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let address = config.listen;
        let listener = bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        Self::start_on(config, listener).await
    }

    /// Starts a member on a listener that is there already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(config: Config, listener: TcpListener) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let opening = config.clone();
        let opened = tasks::blocking(info_span!("open folder"), move || open(&opening)).await;
        let (lock, disk, claim) = opened.map_err(|problem| StartError::Thread(problem.into()))??;
        let (newcomer, others) = match claim {
            // It would ask nobody, for ever.
            Claim::Newcomer if config.peers.len() == 1 => {
                return Err(StartError::Alone(config.data_dir));
            }
            Claim::Newcomer => {
                let (id, others) = transport::join(&config).await?;
                (Some(id), others)
            }
            Claim::Member(..) => (None, Vec::new()),
        };
        let (opening, reading) = (config.clone(), disk.clone());
        let opened =
            tasks::blocking(info_span!("read log"), move || read(&opening, &reading, claim, newcomer)).await;
        let (id, boot, log, recovered) = opened.map_err(|problem| StartError::Thread(problem.into()))??;

        let core = Core::new(settings(&config, id, boot), recovered)
            .map_err(|problem| StartError::Config(problem.to_string()))?;
        let (events, inbox) = channel();
        let (tasks, keeper_tasks) = channel();
        let peers = events.clone();
        let sink = Arc::new(move |event| {
            // A driver that has ended needs no word.
            let _ = peers.send(Event::Peers(event));
        });
        let (members, seen_members) = watch::channel(Arc::new(core.members().clone()));
        let (removed, seen_removed) = watch::channel(false);
        let address = config.peers.get(&config.name).copied().unwrap_or(config.listen);
        let me = Caller { id, name: config.name.clone(), address };
        let (connections, roster) =
            transport::start(&config, me, others, seen_members.clone(), listener, sink);
        let (states, seen_states) = watch::channel(Arc::new(core.state().clone()));
        let (leadership, seen_leadership) = watch::channel(Leadership::default());
        let metrics = Arc::new(Metrics::default());
        let keeper = Keeper {
            log,
            disk: Arc::new(disk),
            folder: config.data_dir.display().to_string(),
            reserve: config.limits.disk_reserve,
            metrics: metrics.clone(),
            tasks: keeper_tasks,
            events: events.clone(),
        };
        let driver = Driver {
            core,
            name: config.name.clone(),
            timing: config.timing,
            inbox,
            keeper: tasks,
            roster,
            members,
            removed,
            states,
            leadership,
            beats: config.beats,
            metrics: metrics.clone(),
        };
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            tasks::thread(name, info_span!("thread", thread = name), run).map_err(StartError::Thread)
        };
        let threads = vec![
            thread("store-core", Box::new(move || driver.run()))?,
            thread("store-disk", Box::new(move || keeper.run()))?,
        ];
        Ok(Arc::new(Embedded {
            name: config.name,
            id,
            members: seen_members,
            removed: seen_removed,
            request_bytes: config.limits.request_bytes,
            waiting: Semaphore::new(config.limits.waiting_requests),
            events,
            states: seen_states,
            leadership: seen_leadership,
            metrics,
            sealing: config.sealing,
            running: Mutex::new(Some(Running { threads, connections, _lock: lock })),
        }))
    }

    /// Ends the member in peace: another one leads first, if there is one; what it knows is on the disk.
    /// Callers who still wait get [`Error::Closed`], watches end.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.events.send(Event::Shutdown(done)).is_ok() {
            // The driver says so, or is gone: either way it has ended.
            let _ = ended.await;
        }
        let mut running = self.take_running();
        if let Some(running) = &mut running {
            running.connections.shutdown().await;
        }
        // Joining may wait for the disk; a panic of a thread was reported when it happened.
        let _ = tasks::blocking(info_span!("end store"), move || running.map(Running::end)).await;
    }

    /// Who the members are, as this member knows it, by their numbers.
    pub fn members(&self) -> Vec<Member> {
        let leader = self.leadership.borrow().leader.clone();
        let members = self.members.borrow();
        let member = |(id, record): (MemberId, &membership::MemberRecord)| Member {
            id,
            name: record.name.clone(),
            address: record.address,
            is_learner: record.learner,
            has_joined: record.joined,
            is_leader: record.joined && leader.as_ref() == Some(&record.name),
            is_me: id == self.id,
        };
        members.iter().map(member).collect()
    }

    /// Waits until the members are others than `known`, or have changed, and returns them: to follow them,
    /// begin with none and go on with what the last call returned.
    pub async fn next_members(&self, known: &[Member]) -> Vec<Member> {
        let mut members = self.members.clone();
        loop {
            members.mark_unchanged();
            let now = self.members();
            let lead = |member: &Member| Member { is_leader: false, ..member.clone() };
            if !now.iter().map(lead).eq(known.iter().map(lead)) {
                return now;
            }
            if members.changed().await.is_err() {
                // The store has ended: nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// This member's number.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Returns when this member has been removed from the cluster, or replaced by a new one. It takes no part
    /// any more, and never will under its number.
    pub async fn removed(&self) {
        let mut removed = self.removed.clone();
        if removed.wait_for(|removed| *removed).await.is_err() {
            // It has ended for another reason.
            std::future::pending::<()>().await;
        }
    }

    /// Adds a member and tells its number; the new member starts with an empty folder and
    /// [`Start::Join`]. It is waited for until then. The name may be empty where only the address is known
    /// yet. With `learner` it follows without a vote until it is [promoted](Self::promote_member); otherwise the
    /// leader lets it vote as soon as it has caught up.
    ///
    /// # Errors
    /// [`Error::Members`] if the change is refused; [`Error::Unavailable`] if no majority answers: it may or may
    /// not have happened.
    pub async fn add_member(
        &self,
        name: &str,
        address: SocketAddr,
        learner: bool,
    ) -> Result<MemberId, Error> {
        self.change_members(MemberChange::Add { name: name.into(), address, learner }).await
    }

    /// Lets a learner vote that has caught up.
    ///
    /// # Errors
    /// As [`add_member`](Self::add_member).
    pub async fn promote_member(&self, id: MemberId) -> Result<(), Error> {
        self.change_members(MemberChange::Promote(id)).await.map(|_| ())
    }

    /// Removes a member for good. A leader that is removed hands its office on first.
    ///
    /// # Errors
    /// As [`add_member`](Self::add_member).
    pub async fn remove_member(&self, id: MemberId) -> Result<(), Error> {
        match self.change_members(MemberChange::Remove(id)).await {
            // A member that is removed learns of it in this way.
            Err(Error::Removed) if id == self.id => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn change_members(&self, change: MemberChange) -> Result<MemberId, Error> {
        match self.change(Command::Members(change)).await? {
            Response::Member(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Why there is no answer.
    fn ended(&self) -> Error {
        if *self.removed.borrow() { Error::Removed } else { Error::Closed }
    }

    fn take_running(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn change(&self, command: Command) -> Result<Response, Error> {
        let bytes: Bytes = command.encode();
        if bytes.len() > self.request_bytes {
            let (size, limit) = (bytes.len(), self.request_bytes);
            return Err(Error::Invalid(format!("the change is {size} bytes long; {limit} are allowed")));
        }
        let _permit = self.waiting.acquire().await.map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Change(bytes, answer)).map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())?
    }

    async fn linearized(&self) -> Result<Arc<State>, Error> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Read(answer)).map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())??;
        Ok(self.snapshot())
    }
}

impl Running {
    fn end(self) {
        drop(self.connections);
        for thread in self.threads {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A driver that has ended needs no word.
        let _ = self.events.send(Event::Stop);
        if let Some(running) = self.take_running() {
            running.end();
        }
    }
}

impl Store for Embedded {
    fn snapshot(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<State>, Error>> {
        Box::pin(self.linearized())
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, Error>> {
        Box::pin(async move {
            txn.check()?;
            let mut steps = txn.success.iter().chain(&txn.failure);
            if steps.all(|op| matches!(op, Op::Range(_))) {
                // What changes nothing needs no entry in the log.
                let state = self.linearized().await?;
                return State::clone(&state).apply(&txn);
            }
            let txn = self.sealing.seal_txn(txn)?;
            // Its values are a little longer now, and members that can't open them check these.
            txn.check()?;
            match self.change(Command::Txn(txn)).await? {
                Response::Txn(response) => Ok(response),
                other => Err(unexpected(&other)),
            }
        })
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

    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.metrics)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.change(Command::Compact(revision)).await.map(|_| ()) })
    }

    fn grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId, Error>> {
        Box::pin(async move {
            match self.change(Command::Grant(ttl_seconds)).await? {
                Response::Lease(lease) => Ok(lease),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn grant_as(&self, lease: LeaseId, ttl_seconds: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.change(Command::GrantAs(lease, ttl_seconds)).await.map(|_| ()) })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.change(Command::KeepAlive(lease)).await.map(|_| ()) })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.change(Command::Revoke(lease)).await.map(|_| ()) })
    }
}

/// The machine answers each command with its own kind of response; anything else is a mistake in it.
fn unexpected(response: &Response) -> Error {
    Error::Invalid(format!("the store answered something else than was asked: {response:?}"))
}
