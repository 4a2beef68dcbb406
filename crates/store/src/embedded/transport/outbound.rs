//! Connections to peers: connect, say hello, then send what is in the peer's outbox until it breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use raft::eraftpb::{Message, Snapshot};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::info_span;

use super::{ConnectionError, Event, Peer, Shared, read_frame, tune};
use crate::embedded::image::{Image, PIECE};
use crate::embedded::outbox::{Item, Outbox};
use crate::embedded::wire::{Caller, Frame, Refusal};

/// A write that a peer does not take for this long ends the connection: it is long since silent by then, and a new connection
/// begins without what the old one is stuck in.
const STUCK: Duration = Duration::from_secs(2);
/// Messages that wait are written together up to this many bytes: four records of TLS, after which a system call costs nothing
/// beside what it sends.
const BATCH: usize = 64 << 10;

/// Keeps a connection to a peer for as long as it runs.
pub async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut pause = shared.timing.reconnect / 8;
    let mut was_connected = true;
    loop {
        let connected = timeout(shared.timing.connect_timeout, connect(&shared, &peer)).await;
        let problem = match connected.map_err(ConnectionError::from).flatten() {
            Ok(stream) => {
                tracing::debug!(peer = peer.name, "connected");
                (pause, was_connected) = (shared.timing.reconnect / 8, true);
                peer.outbox.set_connected(true);
                send(&shared, &peer, stream).await
            }
            Err(problem) => problem,
        };
        if was_connected {
            tracing::info!(peer = peer.name, %problem, "no connection to the peer; trying until there is one");
            was_connected = false;
            if peer.outbox.set_connected(false) {
                (shared.sink)(Event::SnapshotSent(peer.id, false));
            }
            (shared.sink)(Event::Unreachable(peer.id));
        }
        // An error here only means that the pause was not cut short.
        let _ = timeout(pause, peer.heard.notified()).await;
        pause = (pause * 2).min(shared.timing.reconnect);
    }
}

pub type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(shared: &Shared, peer: &Peer) -> Result<Stream, ConnectionError> {
    let host = Caller { id: peer.id, name: peer.name.clone(), address: peer.address };
    greet(&shared.client_tls, &shared.cluster, &shared.me, &host, shared.timing.silence).await
}

/// Connects to a member and says who calls.
pub async fn greet(
    tls: &Arc<rustls::ClientConfig>,
    cluster: &str,
    me: &Caller,
    host: &Caller,
    silence: Duration,
) -> Result<Stream, ConnectionError> {
    let stream = TcpStream::connect(host.address).await?;
    tune(&stream, silence)?;
    let name = ServerName::try_from(host.name.clone())
        .map_err(|_| ConnectionError::Refused(format!("{} is no host name", host.name)))?;
    let mut stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
    let hello = Frame::Hello { cluster: cluster.to_owned(), caller: me.clone() };
    stream.write_all(&hello.encode()).await?;
    stream.flush().await?;
    Ok(stream)
}

async fn send(shared: &Shared, peer: &Peer, stream: Stream) -> ConnectionError {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        let mut buffer = Vec::new();
        loop {
            let sent = match peer.outbox.next().await {
                Item::Message(message) => {
                    write_messages(&mut writer, &peer.outbox, message, &mut buffer).await
                }
                Item::Snapshot(message, image) => {
                    let sent = write_snapshot(&mut writer, &peer.outbox, message, *image, &mut buffer).await;
                    (shared.sink)(Event::SnapshotSent(peer.id, sent.is_ok()));
                    sent
                }
            };
            if let Err(problem) = sent {
                return problem;
            }
        }
    };
    // The peer says nothing on this connection but why it ends it.
    let mut buffer = BytesMut::new();
    tokio::select! {
        problem = writing => problem,
        read = read_frame(&mut reader, &mut buffer) => match read {
            Ok(Some(Frame::Refused(refusal))) => {
                if refusal == Refusal::Removed {
                    (shared.sink)(Event::Removed);
                }
                ConnectionError::TurnedAway(refusal)
            }
            Ok(_) => ConnectionError::Refused("the peer closed the connection".into()),
            Err(problem) => problem,
        },
    }
}

async fn write_messages(
    writer: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
    first: Message,
    buffer: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    buffer.clear();
    buffer.shrink_to(BATCH * 2);
    Frame::Message(first).append_to(buffer);
    while buffer.len() < BATCH
        && let Some(message) = outbox.try_message()
    {
        Frame::Message(message).append_to(buffer);
    }
    write(writer, buffer).await
}

async fn write_snapshot(
    writer: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
    mut message: Message,
    image: Image,
    buffer: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    // Its length is found by a look at every key.
    let pieces = tasks::blocking(info_span!("encode a snapshot"), move || image.pieces(PIECE)).await;
    let pieces = pieces.map_err(|problem| ConnectionError::Refused(problem.to_string()))?;
    let metadata = message.mut_snapshot().take_metadata();
    message.set_snapshot(Snapshot { metadata: Some(metadata).into(), ..Snapshot::default() });
    let start = Frame::SnapshotStart { message, length: pieces.length() };
    write(writer, &start.encode()).await?;
    for piece in pieces {
        while let Some(message) = outbox.try_message() {
            write_messages(writer, outbox, message, buffer).await?;
        }
        write(writer, &Frame::SnapshotChunk(piece.into()).encode()).await?;
    }
    Ok(())
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ConnectionError> {
    timeout(STUCK, async {
        writer.write_all(bytes).await?;
        writer.flush().await
    })
    .await??;
    Ok(())
}
