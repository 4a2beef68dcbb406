//! The timeouts of a host.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How long what may take on a host, and how often what is done: all that depends on the network between the hosts and on
/// their disks. `defaults.yaml` says why the defaults are as they are. What upstream or a protocol fixes (a kubelet's
/// lease, a handshake's time) stands where it is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// How the hosts hear of each other.
    pub heartbeats: Heartbeats,
    /// The clocks of the hosts' own store.
    pub store: StoreTimeouts,
    /// What becomes of a silent host's pods.
    pub nodes: NodeTimeouts,
    /// How a host that nobody hears is known to have stopped what must not run twice.
    pub lease: LeaseTimeouts,
    /// When a host gives itself up.
    pub watchdog: Watchdog,
}

/// How the hosts hear of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Heartbeats {
    /// From one beat to the next.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// A host that was not heard for this long is silent: nothing is sent to its pods any more.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Heartbeats { every: ms(50), silent_after: ms(250) }
    }
}

/// The clocks of the hosts' own store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreTimeouts {
    /// What all others are counted in.
    #[serde(with = "humantime_serde")]
    pub tick: Duration,
    /// Between a leader's messages to those who have nothing else to hear from it.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a member wants to lead.
    #[serde(with = "humantime_serde")]
    pub election_min: Duration,
    /// The longest such time: each member draws its own, so that two seldom begin together.
    #[serde(with = "humantime_serde")]
    pub election_max: Duration,
    /// How long a caller waits for an answer at most.
    #[serde(with = "humantime_serde")]
    pub request: Duration,
    /// How long a leader's disk may stall before a member whose disk doesn't is asked to lead.
    #[serde(with = "humantime_serde")]
    pub disk_stall: Duration,
    /// How long connecting to a member may take.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// The longest pause between two tries to connect.
    #[serde(with = "humantime_serde")]
    pub reconnect: Duration,
    /// How long sent data may go unanswered before a connection is given up.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
}

impl Default for StoreTimeouts {
    fn default() -> Self {
        StoreTimeouts {
            tick: ms(10),
            heartbeat: ms(30),
            election_min: ms(150),
            election_max: ms(300),
            request: ms(5000),
            disk_stall: ms(300),
            connect: ms(200),
            reconnect: ms(100),
            silence: ms(1000),
        }
    }
}

/// What becomes of a silent host's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeTimeouts {
    /// A host that was silent for this long is NotReady, and its stateless pods get spares.
    #[serde(with = "humantime_serde")]
    pub not_ready_after: Duration,
}

impl Default for NodeTimeouts {
    fn default() -> Self {
        NodeTimeouts { not_ready_after: ms(1100) }
    }
}

/// How a host that nobody hears is known to have stopped what must not run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaseTimeouts {
    /// A host holds its lease for this long after it sent what a majority of the members has heard.
    #[serde(with = "humantime_serde")]
    pub held_for: Duration,
    /// A host that a majority has not heard for this long is fenced.
    #[serde(with = "humantime_serde")]
    pub fenced_after: Duration,
}

impl Default for LeaseTimeouts {
    fn default() -> Self {
        LeaseTimeouts { held_for: ms(1500), fenced_after: ms(2000) }
    }
}

/// When a host gives itself up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Watchdog {
    /// How often the threads that answer the API are asked, and how long each question waits.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Threads that answered nothing for this long are given up.
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
    /// How long leadership and the virtual address may take to be given up before the process ends anyway.
    #[serde(with = "humantime_serde")]
    pub farewell: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { every: ms(250), stuck_after: ms(5000), farewell: ms(2000) }
    }
}

impl Timeouts {
    /// All of them with the paths of their fields.
    pub(crate) fn named(&self) -> Vec<(&'static str, Duration)> {
        let Timeouts { heartbeats, store, nodes, lease, watchdog } = self;
        vec![
            ("timeouts.heartbeats.every", heartbeats.every),
            ("timeouts.heartbeats.silentAfter", heartbeats.silent_after),
            ("timeouts.store.tick", store.tick),
            ("timeouts.store.heartbeat", store.heartbeat),
            ("timeouts.store.electionMin", store.election_min),
            ("timeouts.store.electionMax", store.election_max),
            ("timeouts.store.request", store.request),
            ("timeouts.store.diskStall", store.disk_stall),
            ("timeouts.store.connect", store.connect),
            ("timeouts.store.reconnect", store.reconnect),
            ("timeouts.store.silence", store.silence),
            ("timeouts.nodes.notReadyAfter", nodes.not_ready_after),
            ("timeouts.lease.heldFor", lease.held_for),
            ("timeouts.lease.fencedAfter", lease.fenced_after),
            ("timeouts.watchdog.every", watchdog.every),
            ("timeouts.watchdog.stuckAfter", watchdog.stuck_after),
            ("timeouts.watchdog.farewell", watchdog.farewell),
        ]
    }
}
