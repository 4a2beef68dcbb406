//! A member's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::StartError;
use crate::Sealing;

/// The most members that a store begins with: each more makes every write slower, and seven bear the loss of three.
pub const MOST_PEERS: usize = 7;

/// What a member needs to know when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// The cluster's name: members of different clusters don't talk, and a data folder belongs to one.
    pub cluster_id: String,
    /// The members that the cluster begins with and their addresses, this one included: an odd number. For one
    /// that joins, the members to ask, and itself. From then on the cluster itself knows who its members are.
    pub peers: BTreeMap<String, SocketAddr>,
    /// What an empty folder means.
    pub start: Start,
    /// Where this member listens for the others.
    pub listen: SocketAddr,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// TLS towards members that connect: must ask for a certificate. The one given must be for the DNS
    /// name that is the member's name.
    pub server_tls: Arc<rustls::ServerConfig>,
    /// TLS towards members that are connected to, with this member's certificate.
    pub client_tls: Arc<rustls::ClientConfig>,
    /// The clocks.
    pub timing: Timing,
    /// The sizes.
    pub limits: Limits,
    /// Seeds what is drawn at random; from the system if none is given.
    pub seed: Option<u64>,
    /// Tells of members' signs of life beside the store's own messages, if there are such.
    pub beats: Option<Beats>,
    /// How values are sealed wherever they lie. All members must be able to open what one of them seals.
    pub sealing: Sealing,
}

/// When a member was last heard by other means than the store's messages. A leader that is late with those, and is heard
/// by these, is waited for a little longer before another one is elected.
#[derive(Clone)]
pub struct Beats(Arc<LastHeard>);

type LastHeard = dyn Fn(&str) -> Option<Instant> + Send + Sync;

impl Beats {
    /// Asks `last_heard` for a member, by its name. It is asked often, and must answer at once.
    pub fn new(last_heard: impl Fn(&str) -> Option<Instant> + Send + Sync + 'static) -> Self {
        Beats(Arc::new(last_heard))
    }

    pub(super) fn last_heard(&self, member: &str) -> Option<Instant> {
        (self.0)(member)
    }
}

impl fmt::Debug for Beats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beats")
    }
}

/// How a member with an empty folder starts. One whose folder holds its data goes on with that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// A new cluster begins, of all [`peers`](Config::peers). To be said of a cluster's first start alone: a
    /// member that lost its disk must not vote as the one that it was.
    #[default]
    Bootstrap,
    /// The cluster is there: the others are asked to let this member in, for as long as it takes. It gets a
    /// new number in place of the old one of its name, everything from the leader, and then its vote.
    Join,
}

/// The engine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// What all others are counted in.
    pub tick: Duration,
    /// Between a leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a member wants to lead.
    pub election_min: Duration,
    /// The longest such time.
    pub election_max: Duration,
    /// How long a caller waits at most.
    pub request_timeout: Duration,
    /// How long a leader's disk may stall before a member whose disk doesn't is asked to lead.
    pub disk_stall: Duration,
    /// How long connecting to a peer may take.
    pub connect_timeout: Duration,
    /// The longest pause between two tries to connect.
    pub reconnect: Duration,
    /// How long sent data may go unanswered before a connection is given up.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Timing {
            tick: ms(10),
            heartbeat: ms(30),
            election_min: ms(150),
            election_max: ms(300),
            request_timeout: ms(5000),
            disk_stall: ms(300),
            connect_timeout: ms(200),
            reconnect: ms(100),
            silence: ms(1000),
        }
    }
}

/// The engine's sizes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A snapshot is made once the entries since the last one take this many bytes, or half as many as the state where that
    /// is more.
    pub snapshot_bytes: u64,
    /// How many bytes of entries before the snapshot stay, for members that were away for a moment.
    pub trailing_bytes: u64,
    /// The most bytes of history (what was replaced and deleted) that are kept in memory, however young it is; or
    /// half as many as the map itself takes, where that is more.
    pub history_bytes: u64,
    /// With less than this free on the disk, changes are refused.
    pub disk_reserve: u64,
    /// The largest change, in bytes.
    pub request_bytes: usize,
    /// How many changes may wait at a time; more wait for their turn.
    pub waiting_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            snapshot_bytes: 4 << 20,
            trailing_bytes: 4 << 20,
            history_bytes: crate::HISTORY_BYTES,
            disk_reserve: 64 << 20,
            request_bytes: 4 << 20,
            waiting_requests: 4096,
        }
    }
}

impl Config {
    /// A member with the default clocks and sizes, listening on its own address.
    ///
    /// # Errors
    /// [`StartError::Config`] if the member is not among `peers`.
    pub fn new(
        name: impl Into<String>,
        cluster_id: impl Into<String>,
        peers: BTreeMap<String, SocketAddr>,
        data_dir: impl Into<PathBuf>,
        server_tls: Arc<rustls::ServerConfig>,
        client_tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, StartError> {
        let name = name.into();
        let listen = *peers
            .get(&name)
            .ok_or_else(|| StartError::Config(format!("member {name} is not among its own peers")))?;
        Ok(Config {
            name,
            cluster_id: cluster_id.into(),
            peers,
            start: Start::default(),
            listen,
            data_dir: data_dir.into(),
            server_tls,
            client_tls,
            timing: Timing::default(),
            limits: Limits::default(),
            seed: None,
            beats: None,
            sealing: Sealing::default(),
        })
    }

    /// Refuses what can't work.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let t = &self.timing;
        let problem = if !self.peers.contains_key(&self.name) {
            format!("member {} is not among its own peers", self.name)
        } else if self.peers.len() > MOST_PEERS {
            format!("{} members are too many: {MOST_PEERS} are the most, and 3 or 5 do", self.peers.len())
        } else if self.peers.keys().any(|name| rustls::pki_types::ServerName::try_from(&**name).is_err()) {
            "the members' names must be host names".into()
        } else if t.tick.is_zero() || t.heartbeat < t.tick {
            "a heartbeat takes at least a tick, and a tick some time".into()
        } else if t.election_min < t.heartbeat * 3 || t.election_max <= t.election_min {
            "the election timeout must be at least three heartbeats, and its longest above its shortest"
                .into()
        } else if self.limits.request_bytes > super::wire::FRAME_LIMIT / 2 {
            "the largest change does not fit into a message".into()
        } else {
            return Ok(());
        };
        Err(StartError::Config(problem))
    }
}
