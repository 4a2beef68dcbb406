//! The members' connections: TLS 1.3 over TCP, one from each member to each other, on which only the one that
//! connected speaks. A peer's task and queue are its own, so a dead one never delays another.

mod arriving;
mod inbound;
mod join;
mod outbound;
mod roster;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::tasks::SpawnIn;
use bytes::{Bytes, BytesMut};
use raft::eraftpb::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info_span;

use super::codec::Malformed;
use super::command::Response;
use super::config::{Config, Timing};
use super::image::{Image, ImageError};
use super::membership::Membership;
use super::outbox::Outbox;
use super::wire::{Caller, FRAME_LIMIT, Frame, HEADER, Refusal};
use crate::{Error, MemberId, Sealing};

pub use join::join;
pub use roster::Roster;

/// What the connections tell the driver.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all events are messages.
pub enum Event {
    /// A message came. The permit is given back when it has been handled, so that no peer can fill the
    /// memory.
    Message(Message, Option<Image>, OwnedSemaphorePermit),
    /// The connection to a peer broke.
    Unreachable(MemberId),
    /// A snapshot was handed to a peer in full, or was not.
    SnapshotSent(MemberId, bool),
    /// A member with an empty folder asks to be let in; the command says how.
    Joins(Bytes, oneshot::Sender<Result<Response, Error>>),
    /// A peer says that this member was removed.
    Removed,
}

/// Takes what the connections tell.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// One peer as its tasks see it.
struct Peer {
    id: MemberId,
    name: String,
    address: SocketAddr,
    outbox: Arc<Outbox>,
    /// Rung when the peer connected to us: it is there again, so it is worth trying at once.
    heard: Notify,
}

/// What all tasks share.
struct Shared {
    me: Caller,
    cluster: String,
    timing: Timing,
    server_tls: Arc<rustls::ServerConfig>,
    client_tls: Arc<rustls::ClientConfig>,
    roster: Arc<Roster>,
    members: watch::Receiver<Arc<Membership>>,
    sealing: Sealing,
    sink: Sink,
}

/// Runs the connections until the set is dropped: to the members, as they change, and to those (like `others`)
/// of whom this member does not know more yet than that they are there.
pub fn start(
    config: &Config,
    me: Caller,
    others: Vec<Caller>,
    members: watch::Receiver<Arc<Membership>>,
    listener: TcpListener,
    sink: Sink,
) -> (JoinSet<()>, Arc<Roster>) {
    let roster = Arc::new(Roster::default());
    let shared = Arc::new(Shared {
        me,
        cluster: config.cluster_id.clone(),
        timing: config.timing,
        server_tls: config.server_tls.clone(),
        client_tls: config.client_tls.clone(),
        roster: roster.clone(),
        members,
        sealing: config.sealing.clone(),
        sink,
    });
    let (callers, heard) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn_in(info_span!("connect members"), roster::run(shared.clone(), others, heard));
    tasks.spawn_in(info_span!("accept members"), inbound::run(shared, listener, callers));
    (tasks, roster)
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it took too long")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Refused(String),
    #[error("the peer says: {}", match .0 {
        Refusal::Removed => "this member was removed from the cluster",
        Refusal::Never(why) | Refusal::Later(why) => why.as_str(),
    })]
    TurnedAway(Refusal),
}

impl From<ImageError> for ConnectionError {
    fn from(problem: ImageError) -> Self {
        match problem {
            ImageError::Io(problem) => ConnectionError::Io(problem),
            ImageError::Malformed(problem) => ConnectionError::Malformed(problem),
        }
    }
}

/// No waiting for more data to send; and a peer that answers nothing, not even with its kernel, for this
/// long is gone.
fn tune(stream: &TcpStream, silence: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(silence))
}

/// Reads a frame; none at the end of the connection.
async fn read_frame(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<Frame>, ConnectionError> {
    loop {
        if let Some(header) = buffer.first_chunk::<HEADER>() {
            let length = u32::from_le_bytes(*header) as usize;
            if length > FRAME_LIMIT {
                return Err(Malformed("a frame is too long").into());
            }
            if buffer.len() >= HEADER + length {
                let frame = buffer.split_to(HEADER + length).freeze();
                return Ok(Some(Frame::decode(frame.slice(HEADER..))?));
            }
            buffer.reserve(HEADER + length - buffer.len());
        } else {
            buffer.reserve(4096);
        }
        if reader.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
