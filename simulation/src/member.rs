//! One member: its core, its log, its disk, its clock. It does what the engine's two threads do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::parts::{
    Claim, Claimant, Core, Image, Input, Log, LogError, Membership, Persist, Settings, claim, settle,
};
use store::{Leadership, MemberId, Revision, StartError, State};
use tokio::sync::watch;

use crate::disk::{Rot, SimulatedDisk};

/// How often a member looks at the room on its disk, by its own clock.
pub const LOOK: u64 = 1_000_000;
/// The engine's tick, by its own clock.
pub const TICK: u64 = 10_000;
/// With less room than this on the disk, changes are refused.
pub const RESERVE: u64 = 4096;
/// The shortest time without a leader that makes an election, by a member's own clock.
pub const ELECTION: u64 = 150_000;

/// What stays when a process ends.
#[derive(Debug, Default)]
pub struct Host {
    /// The disk.
    pub disk: SimulatedDisk,
    /// Which life of the process it is.
    pub life: u64,
    /// The process, if it runs.
    pub running: Option<Running>,
    /// The number of the member whose data the disk holds, unless the disk is lost.
    pub id: Option<MemberId>,
    /// Its store took part once: with an empty disk it joins.
    pub begun: bool,
    /// Whether its log held a change of members that was not applied, when its process ended.
    pub left_changing: bool,
    /// It was never switched on.
    pub absent: bool,
    /// The request with which it asks to be let in.
    pub asks: Option<u64>,
    /// What is wrong with the disk, until it is found.
    pub rot: Option<Rot>,
    /// It stands still until then.
    pub paused_until: u64,
    /// It stands still until then, but its heartbeats, which have a thread of their own, go on.
    pub busy_until: u64,
    /// Its disk answers no sync until then.
    pub stalled_until: u64,
    /// How long its disk takes for a sync at least, in microseconds.
    pub slowness: u64,
    /// How fast its clock runs.
    pub clock: Clock,
}

/// A clock that runs faster or slower than the world's.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    rate: f64,
    /// What it showed when it began to run so, and when that was.
    since: (f64, u64),
}

impl Default for Clock {
    fn default() -> Self {
        Clock { rate: 1.0, since: (0.0, 0) }
    }
}

impl Clock {
    /// What it shows, in microseconds.
    pub fn show(&self, now: u64) -> u64 {
        (self.since.0 + (now - self.since.1) as f64 * self.rate) as u64
    }

    /// How long the world waits until it has moved on by so much.
    pub fn wait(&self, local: u64) -> u64 {
        ((local as f64 / self.rate) as u64).max(1)
    }

    /// Runs at another speed from now on.
    pub fn set_rate(&mut self, now: u64, rate: f64) {
        *self = Clock { rate, since: (self.show(now) as f64, now) };
    }
}

/// A process.
pub struct Running {
    /// Its number as a member.
    pub id: MemberId,
    /// The consensus.
    pub core: Core,
    /// The log.
    pub log: Log,
    /// When the clock showed what when the process started.
    pub started: u64,
    /// When the next tick is due, by its clock since the start.
    pub next_tick: u64,
    /// A tick was due while it stood still.
    pub missed_tick: bool,
    /// What is being written.
    pub writing: Vec<Persist>,
    /// What is to be written then.
    pub waiting: Vec<Persist>,
    /// There was no room for what is being written.
    pub stuck: bool,
    /// Whether the core was told that there is room.
    pub roomy: bool,
    /// A snapshot on its way to the disk.
    pub saving: Option<Image>,
    /// What the watchers follow.
    pub states: watch::Sender<Arc<State>>,
    /// The newest revision shown.
    pub shown: Revision,
    /// Who leads, as shown.
    pub leadership: Leadership,
    /// What came while it stood still.
    pub deferred: Vec<Input>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = (self.writing.len(), self.waiting.len(), self.stuck, self.roomy);
        write!(f, "{:?} disk {disk:?} {:?}", self.core, self.leadership)
    }
}

/// How a start ended otherwise than with a running member.
#[derive(Debug)]
pub enum Failed {
    /// The power went, or there is no room.
    TryAgain,
    /// The disk is damaged, as this says.
    Damaged(String, u64),
    /// Anything else is a mistake.
    Mistake(String),
}

/// The sizes that a world draws.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// How many members the cluster begins with.
    pub members: u64,
    /// How many machines there are that may join later.
    pub spares: u64,
    /// No snapshot is made after fewer bytes of entries.
    pub snapshot_bytes: u64,
    /// This many bytes of them stay in the log.
    pub trailing_bytes: u64,
    /// This many bytes of history are kept.
    pub history_bytes: u64,
    /// How long a file of the log grows.
    pub segment: u64,
    /// How much of a snapshot is written at a time.
    pub piece: usize,
}

/// How a start ended well.
#[allow(clippy::large_enum_variant)] // There are few of them.
pub enum Started {
    /// A member runs.
    Running(Running),
    /// It has no number yet.
    Newcomer,
}

/// What a machine is called.
pub fn name(n: usize) -> String {
    format!("n{}", n + 1)
}

/// Where a machine is.
pub fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n as u8 + 1], 1))
}

/// What a start needs to know beside the disk.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// The machine.
    pub n: usize,
    /// What an empty disk means.
    pub empty: store::Start,
    /// The number that it has just been given.
    pub admitted: Option<MemberId>,
    /// Seeds the core.
    pub seed: u64,
    /// What its clock shows.
    pub clock: u64,
}

/// Starts a member on its disk, as the engine does.
pub fn start(disk: &SimulatedDisk, sizes: Sizes, start: Start) -> Result<Started, Failed> {
    let Start { n, seed, clock, .. } = start;
    let peers: BTreeMap<String, SocketAddr> =
        (0..sizes.members as usize).map(|n| (name(n), address(n))).collect();
    let first = Membership::initial(&peers);
    let claimant = Claimant {
        cluster: "simulation",
        member: &name(n),
        first: &first,
        start: start.empty,
        folder: Path::new("simulated"),
    };
    let failed = |problem: StartError| match problem {
        StartError::Damaged { file, offset, .. } => Failed::Damaged(file, offset),
        StartError::Folder { .. } => Failed::TryAgain,
        other => Failed::Mistake(other.to_string()),
    };
    let (id, boot) = match (claim(disk, &claimant).map_err(failed)?, start.admitted) {
        (Claim::Member(id, boot), _) => (id, boot),
        (Claim::Newcomer, Some(id)) => (id, settle(disk, &claimant, id).map_err(failed)?),
        (Claim::Newcomer, None) => return Ok(Started::Newcomer),
    };
    let (mut log, recovered) = Log::open(Arc::new(disk.clone())).map_err(|problem| match problem {
        LogError::Io(_) => Failed::TryAgain,
        LogError::Damaged(damaged) => failed(damaged),
    })?;
    log.set_lengths(sizes.segment, sizes.piece);
    let settings = Settings {
        id,
        boot,
        seed,
        tick: Duration::from_micros(TICK),
        heartbeat_ticks: 3,
        election_ticks: (15, 30),
        request_timeout: Duration::from_secs(3),
        disk_stall: Duration::from_millis(300),
        snapshot_bytes: sizes.snapshot_bytes,
        trailing_bytes: sizes.trailing_bytes,
        history_bytes: sizes.history_bytes,
    };
    let core = Core::new(settings, recovered).map_err(|problem| Failed::Mistake(problem.to_string()))?;
    let states = watch::Sender::new(Arc::new(core.state().clone()));
    Ok(Started::Running(Running {
        id,
        core,
        log,
        started: clock,
        next_tick: TICK,
        missed_tick: false,
        writing: Vec::new(),
        waiting: Vec::new(),
        stuck: false,
        roomy: true,
        saving: None,
        states,
        shown: Revision::ZERO,
        leadership: Leadership::default(),
        deferred: Vec::new(),
    }))
}
