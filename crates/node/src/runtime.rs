//! What runs the containers of pods: one trait. The shims implement it, and so do the runtimes of others.
//!
//! A pod has one sandbox, in which its containers live, one life each at a time. A runtime outlives the agent: what it
//! runs is found again by the next one.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use membership::lease::Epoch;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::container::cgroup;
use crate::container::{LogProgress, Resize};
use crate::foreign;
use crate::host::Command;
use crate::oci;

/// A container in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Which {
    /// Its pod.
    pub uid: String,
    /// Its name.
    pub container: String,
    /// Which of its lives.
    pub attempt: u32,
}

/// What is tried, and may fail.
pub(crate) type Tried<'a, T> = BoxFuture<'a, Result<T, RunError>>;

/// A command that is to run beside a container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub argv: Vec<String>,
    pub streams: Streams,
    /// Who waits for it kills it after that; a runtime that can't kill ends it by itself then.
    pub limit: Option<Duration>,
}

/// Runs containers.
pub(crate) trait Runtime: fmt::Debug + Send + Sync {
    /// Makes the sandbox of a pod, whose folder is there; fine if it has one. Where its containers share namespaces, as
    /// `wanted`, these are answered.
    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> Tried<'a, Vec<oci::Namespace>>;

    /// The first process of a container that runs, as the host numbers it.
    fn first_process(&self, which: &Which) -> Option<i32>;

    /// The network namespace that a pod's containers share, if it is the pod's own.
    fn network<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Option<OwnedFd>>;

    /// Starts one life of a container, whose log lies in the folder `log` as `ATTEMPT.log`.
    fn start<'a>(&'a self, which: &'a Which, program: Program, log: PathBuf) -> Tried<'a, Begun>;

    /// Waits for a container's end: its processes and the commands beside it are dead, its log is complete. None if
    /// that can't be known any more: then nobody watches over what is left of it.
    fn exit<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Option<Exit>>;

    /// Sends a signal to a container's processes. One that ended gets none.
    fn signal(&self, which: &Which, signal: i32);

    /// Runs a command beside a container: as its user, with its environment, in its namespaces.
    fn exec<'a>(&'a self, which: &'a Which, asked: Exec) -> Tried<'a, Session>;

    /// What a container prints from now on, of each output that is wanted (stdout, stderr), and what it reads. None if
    /// it ended.
    fn attach<'a>(&'a self, which: &'a Which, wanted: (bool, bool)) -> BoxFuture<'a, Option<Attached>>;

    /// A container's input is over.
    fn close_input(&self, which: &Which);

    /// Follows how far a container's log is.
    fn log(&self, which: &Which) -> watch::Receiver<LogProgress>;

    /// Waits until something goes wrong with a container that goes on all the same.
    fn trouble(&self) -> BoxFuture<'_, Trouble>;

    /// What runs or ran, also under former agents; what can't be taken over is ended first.
    fn found(&self) -> BoxFuture<'_, Vec<Found>>;

    /// What a runtime has that did not answer in time when [`Runtime::found`] was asked, once it does; of all others nothing ever comes. Asked once.
    fn found_late(&self) -> BoxFuture<'_, Vec<Found>> {
        std::future::pending().boxed()
    }

    /// Whether such a runtime still doesn't answer.
    fn is_awaited(&self) -> bool {
        false
    }

    /// Gives a container that runs other amounts of the machine, without a restart; without a container, its pod as a whole. What nothing on
    /// this host holds it to is passed over, as when it starts.
    fn update_resources<'a>(
        &'a self,
        uid: &'a str,
        of: Option<&'a Which>,
        to: cgroup::Amounts,
    ) -> Tried<'a, ()>;

    /// What each container uses that runs, with when it began.
    fn usage(&self) -> BoxFuture<'_, Vec<(Which, Timestamp, Usage)>>;

    /// What pods use of memory as a whole; only of those of which that is known.
    fn memory_of_pods(&self, uids: Vec<String>) -> BoxFuture<'_, HashMap<String, cgroup::Memory>>;

    /// What is to be said of a container whose end can't be known, as [`Runtime::exit`] has it.
    fn lost(&self, _uid: &str) -> Lost {
        Lost { reason: None, message: "the pod's shim ended, and the container with it" }
    }

    /// Whether what it runs can stop with the host's lease by itself, whatever becomes of the agent.
    fn can_stop_with_lease(&self) -> bool {
        false
    }

    /// The sandbox that is made next for a pod stops with this epoch of the host's lease; nothing: with none.
    fn bind(&self, _uid: &str, _epoch: Option<Epoch>) {}

    /// The epoch that the sandbox of a pod stops with, if it stops with one; nothing if the pod has no sandbox, and nothing is left of one.
    fn bound(&self, _uid: &str) -> Option<Option<Epoch>> {
        None
    }

    /// Whether a pod's sandbox is gone because its lease is over.
    fn ended_with_lease(&self, _uid: &str) -> bool {
        false
    }

    /// The pods that have a sandbox.
    fn sandboxes(&self) -> Vec<String>;

    /// Ends a pod's sandbox, and returns once everything in it is dead.
    fn end<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()>;

    /// Likewise of a pod that no runtime of others has, as its class says: none that doesn't answer is waited for.
    fn end_own<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        self.end(uid)
    }

    /// Ends all sandboxes.
    fn end_all(&self) -> BoxFuture<'_, ()>;
}

/// What is said of a container that is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// In the API's word, if it has one.
    pub reason: Option<&'static str>,
    /// For people.
    pub message: &'static str,
}

/// What a pod's sandbox is to be.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Its containers are processes of the host, and share nothing more.
    Process,
    /// They have roots of their own.
    Own(Box<oci::Wanted>),
    /// The runtime of others has it.
    Foreign(Box<foreign::Sandbox>),
}

/// How the three streams of a process are laid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Streams {
    /// Its outputs are pipes; it has nothing to read.
    #[default]
    Outputs,
    /// All are pipes.
    Pipes,
    /// All are one terminal.
    Terminal,
}

/// A container to start.
#[derive(Debug)]
pub(crate) enum Program {
    /// A process of the host.
    Process(Box<Command>),
    /// One with a root of its own.
    Bundle(Bundle),
    /// One of a runtime of others.
    Foreign(Box<foreign::Container>),
}

impl Program {
    /// Says what its pod as a whole has, which is more than the pod asks for while a resize can't take it away yet.
    pub(crate) fn set_pod(&mut self, pod: cgroup::Amounts) {
        match self {
            Program::Process(command) => command.cgroup.pod = pod,
            Program::Bundle(bundle) => bundle.cgroup.pod = pod,
            // What it has stands in its cgroup, which outlives its sandbox.
            Program::Foreign(_) => {}
        }
    }
}

/// A container as its bundle has it.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Its folder.
    pub folder: PathBuf,
    /// The folders of its image's layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// Its input and outputs.
    pub streams: Streams,
    /// What its cgroup is to be given.
    pub cgroup: cgroup::Wanted,
    /// The container of its pod whose processes it is to be among.
    pub target: Option<Which>,
}

/// A container that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Its first process.
    pub pid: i32,
    /// When.
    pub since: Timestamp,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The time of a processor that it has had since it began.
    pub cpu: Duration,
    /// The memory in bytes that can't be taken from it (the working set).
    pub memory: u64,
    /// All memory that counts as its own, with what the kernel keeps of files for it.
    pub with_files: u64,
    /// The memory that is no file's.
    pub rss: u64,
    /// How often it touched a page that wasn't there.
    pub faults: u64,
    /// How often that had to be read from the disk.
    pub major_faults: u64,
    /// How many processes it has.
    pub processes: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Usage {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            with_files: self.with_files.saturating_add(other.with_files),
            rss: self.rss.saturating_add(other.rss),
            faults: self.faults.saturating_add(other.faults),
            major_faults: self.major_faults.saturating_add(other.major_faults),
            processes: self.processes.saturating_add(other.processes),
        }
    }

    /// What a pod uses: what its containers do, and of memory what all of it does, if that is known.
    pub(crate) fn of_pod(containers: impl Iterator<Item = Usage>, memory: Option<cgroup::Memory>) -> Self {
        let sum = containers.fold(Usage::default(), Usage::and);
        memory.map_or(sum, |memory| sum.with(memory))
    }

    /// This, but for memory.
    pub(crate) fn with(self, memory: cgroup::Memory) -> Self {
        let cgroup::Memory { all, working_set, rss, faults, major_faults } = memory;
        Usage { memory: working_set, with_files: all, rss, faults, major_faults, ..self }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Its exit code, 128 and the signal's number for a signal.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// When.
    pub at: Timestamp,
}

/// Why something was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum RunError {
    /// The container's spec is wrong.
    #[error("{0}")]
    Config(String),
    /// The system said no.
    #[error("{0}")]
    System(String),
    /// The container that it was to be beside doesn't run.
    #[error("{0}")]
    Target(String),
    /// The host's lease lets nothing of it start now. Said by the agent's side alone.
    #[error("{0}")]
    Lease(String),
    /// The container ended.
    #[error("the container ended")]
    Gone,
}

impl RunError {
    /// What was asked of a runtime is for another one.
    pub(crate) fn of_another() -> Self {
        RunError::System("it is another runtime's".into())
    }

    /// The container of this name doesn't run, beside which one was to be: in containerd's words.
    pub(crate) fn no_target(name: &str) -> Self {
        RunError::Target(format!("invalid target container: container {name:?} is not running"))
    }
}

/// What went wrong with a container that goes on: its log can't be written.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub which: Which,
    pub why: String,
}

/// A container that a sandbox has.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub which: Which,
    pub begun: Begun,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

/// An output, until it ends.
pub(crate) type OutputReader = Pin<Box<dyn AsyncRead + Send>>;
/// An input, until it is dropped.
pub(crate) type InputWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// A command beside a container. Dropped, all of its session is killed.
pub(crate) struct Session {
    /// Its two outputs; a terminal is the first.
    pub outputs: (OutputReader, OutputReader),
    /// Its input.
    pub input: Option<InputWriter>,
    /// Its terminal, if that is what its streams are.
    pub terminal: Option<Box<dyn Resize>>,
    /// Its end.
    pub end: Box<dyn SessionEnd>,
}

/// The end of a command beside a container.
pub(crate) trait SessionEnd: Send + Sync {
    /// Waits until the command and all of its session are dead. None if that can't be known.
    fn exit(&self) -> BoxFuture<'_, Option<Exit>>;

    /// Kills it.
    fn kill(&self);

    /// Why its end isn't known, if there is a reason.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// A container's own streams.
pub(crate) struct Attached {
    /// What it prints; what isn't wanted is over at once.
    pub outputs: (OutputReader, OutputReader),
    /// What it reads, if it asked for input.
    pub input: Option<InputWriter>,
    /// Its terminal, if it has one.
    pub terminal: Option<Box<dyn Resize>>,
}
