//! The embedded engine: Raft, its log and its snapshots in this process.
//!
//! [`core`] decides without I/O; [`driver`] runs it on a thread and gives it the time; [`keeper`] has the
//! disk, [`transport`] the connections.

mod codec;
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
mod outbox;
pub mod parts;
mod sessions;
mod transport;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use self::command::{Command, Response};
use self::core::{Core, Settings};
use self::driver::{Driver, Event};
use self::keeper::Keeper;
use self::log::{Log, LogError, Recovered};
use crate::{Error, KeyRange, Leadership, LeaseId, Op, Revision, State, Store, Txn, TxnResponse, Watcher};

pub use self::config::{Config, Limits, Timing};
pub use self::error::StartError;

/// A member of the cluster as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it is this process.
    pub is_me: bool,
}

/// The replicated store within this process. Dropping it ends the member at once, as a crash would;
/// [`shutdown`](Embedded::shutdown) ends it in peace.
pub struct Embedded {
    name: String,
    peers: BTreeMap<String, SocketAddr>,
    request_bytes: usize,
    waiting: Semaphore,
    events: Sender<Event>,
    states: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
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
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let (lock, disk, log, recovered, boot) =
            opened.map_err(|problem| StartError::Thread(problem.into()))??;

        let core = Core::new(settings(&config, boot), recovered)
            .map_err(|problem| StartError::Config(problem.to_string()))?;
        let (events, inbox) = channel();
        let (tasks, keeper_tasks) = channel();
        let peers = events.clone();
        let sink = Arc::new(move |event| {
            // A driver that has ended needs no word.
            let _ = peers.send(Event::Peers(event));
        });
        let (connections, outboxes) = transport::start(&config, listener, sink);
        let (states, seen_states) = watch::channel(Arc::new(core.state().clone()));
        let (leadership, seen_leadership) = watch::channel(Leadership::default());
        let keeper = Keeper {
            log,
            disk: Arc::new(disk),
            folder: config.data_dir.display().to_string(),
            reserve: config.limits.disk_reserve,
            tasks: keeper_tasks,
            events: events.clone(),
        };
        let driver = Driver {
            core,
            name: config.name.clone(),
            timing: config.timing,
            inbox,
            keeper: tasks,
            outboxes,
            states,
            leadership,
        };
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(run).map_err(StartError::Thread)
        };
        let threads = vec![
            thread("store-core", Box::new(move || driver.run()))?,
            thread("store-disk", Box::new(move || keeper.run()))?,
        ];
        Ok(Arc::new(Embedded {
            name: config.name,
            peers: config.peers,
            request_bytes: config.limits.request_bytes,
            waiting: Semaphore::new(config.limits.waiting_requests),
            events,
            states: seen_states,
            leadership: seen_leadership,
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
        // Joining may wait for the disk; a panic of a thread was told when it happened.
        let _ = tokio::task::spawn_blocking(move || running.map(Running::end)).await;
    }

    /// Who the members are.
    pub fn members(&self) -> Vec<Member> {
        let leader = self.leadership.borrow().leader.clone();
        let member = |(name, address): (&String, &SocketAddr)| Member {
            name: name.clone(),
            address: *address,
            is_leader: leader.as_ref() == Some(name),
            is_me: *name == self.name,
        };
        self.peers.iter().map(member).collect()
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
        self.events.send(Event::Change(bytes, answer)).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn linearized(&self) -> Result<Arc<State>, Error> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Read(answer)).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)??;
        Ok(self.snapshot())
    }
}

impl Running {
    fn end(self) {
        drop(self.connections);
        for thread in self.threads {
            // A panic was told when it happened.
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

/// Listens on an address. One in use may be a predecessor's that is just ending: it gets a moment.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const TRIES: u32 = 25;
    for _ in 1..TRIES {
        match TcpListener::bind(address).await {
            Err(problem) if problem.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
    TcpListener::bind(address).await
}

type Opened = (File, disk::Folder, Log, Recovered, u64);

fn open(config: &Config) -> Result<Opened, StartError> {
    let failed = |source| StartError::Folder { folder: config.data_dir.clone(), source };
    let disk = disk::Folder::new(&config.data_dir).map_err(failed)?;
    let lock = disk.lock().map_err(failed)?.ok_or_else(|| StartError::InUse(config.data_dir.clone()))?;
    let members: Vec<String> = config.peers.keys().cloned().collect();
    let claimant = folder::Claimant {
        cluster: &config.cluster_id,
        member: &config.name,
        members: &members,
        folder: &config.data_dir,
    };
    let boot = folder::claim(&disk, &claimant)?;
    let (log, recovered) = Log::open(Arc::new(disk.clone())).map_err(|problem| match problem {
        LogError::Io(source) => failed(source),
        LogError::Damaged(damaged) => damaged,
    })?;
    Ok((lock, disk, log, recovered, boot))
}

#[allow(clippy::disallowed_methods)] // A seed has to come from somewhere, once a start.
fn settings(config: &Config, boot: u64) -> Settings {
    let members = config.members();
    let id = members.iter().find(|(_, name)| **name == config.name).map_or(0, |(id, _)| *id);
    let ticks = |time: Duration| (time.as_micros() / config.timing.tick.as_micros().max(1)).max(1) as usize;
    let Timing { heartbeat, election_min, election_max, .. } = config.timing;
    Settings {
        id,
        members,
        boot,
        seed: config.seed.unwrap_or_else(rand::random),
        tick: config.timing.tick,
        heartbeat_ticks: ticks(heartbeat),
        election_ticks: (ticks(election_min), ticks(election_max)),
        request_timeout: config.timing.request_timeout,
        disk_stall: config.timing.disk_stall,
        snapshot_entries: config.limits.snapshot_entries,
        snapshot_bytes: config.limits.snapshot_bytes,
        trailing_entries: config.limits.trailing_entries,
        trailing_bytes: config.limits.trailing_bytes,
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
            let mut steps = txn.success.iter().chain(&txn.failure);
            if steps.all(|op| matches!(op, Op::Range(_))) {
                // What changes nothing needs no entry in the log.
                let state = self.linearized().await?;
                return State::clone(&state).apply(&txn);
            }
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
