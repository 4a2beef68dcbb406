//! The members' connections: TLS 1.3 over TCP, one from each member to each other, on which only the one that
//! connected speaks. A peer's task and queue are its own, so a dead one never delays another.

mod inbound;
mod outbound;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use raft::eraftpb::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinSet;

use super::codec::Malformed;
use super::config::{Config, Timing};
use super::image::Image;
use super::outbox::Outbox;
use super::wire::{FRAME_LIMIT, Frame, HEADER};

/// What the connections tell the driver.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all events are messages.
pub enum Event {
    /// A message came. The permit is given back when it has been handled, so that no peer can fill the
    /// memory.
    Message(Message, Option<Image>, OwnedSemaphorePermit),
    /// The connection to a peer broke.
    Unreachable(u64),
    /// A snapshot was handed to a peer in full, or was not.
    SnapshotSent(u64, bool),
}

/// Takes what the connections tell.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// One peer as its tasks see it.
struct Peer {
    id: u64,
    name: String,
    address: std::net::SocketAddr,
    outbox: Arc<Outbox>,
    /// Rung when the peer connected to us: it is there again, so it is worth trying at once.
    heard: Notify,
}

/// What all tasks share.
struct Shared {
    name: String,
    cluster: String,
    timing: Timing,
    server_tls: Arc<rustls::ServerConfig>,
    client_tls: Arc<rustls::ClientConfig>,
    peers: BTreeMap<String, Arc<Peer>>,
    sink: Sink,
}

/// Runs the connections until the set is dropped. The outboxes are the peers', by their numbers.
pub fn start(
    config: &Config,
    listener: TcpListener,
    sink: Sink,
) -> (JoinSet<()>, BTreeMap<u64, Arc<Outbox>>) {
    let others = config.members().into_iter().filter(|(_, name)| *name != config.name);
    let peers: BTreeMap<String, Arc<Peer>> = others
        .map(|(id, name)| {
            let address = config.peers[&name];
            let peer = Peer { id, name: name.clone(), address, outbox: Arc::default(), heard: Notify::new() };
            (name, Arc::new(peer))
        })
        .collect();
    let outboxes = peers.values().map(|peer| (peer.id, peer.outbox.clone())).collect();
    let shared = Arc::new(Shared {
        name: config.name.clone(),
        cluster: config.cluster_id.clone(),
        timing: config.timing,
        server_tls: config.server_tls.clone(),
        client_tls: config.client_tls.clone(),
        peers,
        sink,
    });
    let mut tasks = JoinSet::new();
    for peer in shared.peers.values() {
        tasks.spawn(outbound::run(shared.clone(), peer.clone()));
    }
    tasks.spawn(inbound::run(shared, listener));
    (tasks, outboxes)
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
                return Ok(Some(Frame::decode(own(frame.slice(HEADER..)))?));
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

/// A copy: entries stay in memory for long, and must not keep the whole read buffer there.
fn own(frame: Bytes) -> Bytes {
    Bytes::copy_from_slice(&frame)
}
