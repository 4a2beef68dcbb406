//! Connections from peers: who is it, then take what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use raft::eraftpb::Message;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ConnectionError, Event, Peer, Shared, read_frame, tune};
use crate::embedded::image::Image;
use crate::embedded::wire::{Frame, SNAPSHOT_LIMIT};

/// A connection must say who it is within this time.
const HELLO: Duration = Duration::from_secs(2);
/// So many may be saying who they are at a time.
const STRANGERS: usize = 64;
/// So many messages of one peer may wait to be handled.
const WAITING: usize = 1024;

/// Takes connections for as long as it runs.
pub async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let (known, mut arrivals) = mpsc::channel::<(Arc<Peer>, TlsStream<TcpStream>, BytesMut)>(1);
    let mut connections = JoinSet::new();
    let mut current: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, address)) = accepted else {
                    // Out of file descriptors, most likely: it passes, or it does not.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(permit) = strangers.clone().try_acquire_owned() else { continue };
                let (shared, known) = (shared.clone(), known.clone());
                connections.spawn(async move {
                    let greeted = timeout(HELLO, greet(&shared, stream)).await;
                    drop(permit);
                    match greeted.map_err(ConnectionError::from).flatten() {
                        // The receiver lives as long as this set of tasks.
                        Ok(arrival) => drop(known.send(arrival).await),
                        Err(problem) => tracing::warn!(%address, %problem, "turned a connection away"),
                    }
                });
            }
            Some((peer, stream, buffer)) = arrivals.recv() => {
                peer.heard.notify_one();
                let task = connections.spawn(listen(shared.clone(), peer.clone(), stream, buffer));
                if let Some(old) = current.insert(peer.id, task) {
                    old.abort();
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Finds out who connected: the certificate must be for the name that it gives.
async fn greet(
    shared: &Shared,
    stream: TcpStream,
) -> Result<(Arc<Peer>, TlsStream<TcpStream>, BytesMut), ConnectionError> {
    tune(&stream, shared.timing.silence)?;
    let mut stream = TlsAcceptor::from(shared.server_tls.clone()).accept(stream).await?;
    let mut buffer = BytesMut::new();
    let Some(Frame::Hello { cluster, member }) = read_frame(&mut stream, &mut buffer).await? else {
        return Err(ConnectionError::Refused("it did not say hello".into()));
    };
    if cluster != shared.cluster {
        return Err(ConnectionError::Refused(format!("it is of cluster {cluster:?}")));
    }
    let refused = || ConnectionError::Refused(format!("it has no certificate for {member:?}"));
    let peer = shared.peers.get(&member).ok_or_else(refused)?.clone();
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or_else(refused)?;
    let name = ServerName::try_from(member.as_str()).map_err(|_| refused())?;
    ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, &name))
        .map_err(|_| refused())?;
    Ok((peer, stream, buffer))
}

/// Takes what a peer says until it stops.
async fn listen(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    mut stream: TlsStream<TcpStream>,
    mut buffer: BytesMut,
) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut snapshot: Option<(Message, u64, Vec<u8>)> = None;
    loop {
        let next = match read_frame(&mut stream, &mut buffer).await {
            Ok(Some(frame)) => take(&peer, &mut snapshot, frame).await,
            Ok(None) => return,
            Err(problem) => Err(problem),
        };
        match next {
            Ok(None) => {}
            Ok(Some((message, image))) => {
                // The semaphore is never closed.
                let Ok(permit) = waiting.clone().acquire_owned().await else { return };
                (shared.sink)(Event::Message(message, image, permit));
            }
            Err(problem) => {
                tracing::warn!(peer = peer.name, %problem, "closed a peer's connection");
                return;
            }
        }
    }
}

type Arrived = Option<(Message, Option<Image>)>;

async fn take(
    peer: &Peer,
    snapshot: &mut Option<(Message, u64, Vec<u8>)>,
    frame: Frame,
) -> Result<Arrived, ConnectionError> {
    let refused = |what: &str| Err(ConnectionError::Refused(what.into()));
    match frame {
        Frame::Message(message) if message.from == peer.id => Ok(Some((message, None))),
        Frame::SnapshotStart { message, length } if message.from == peer.id => {
            if length > SNAPSHOT_LIMIT {
                return refused("it offers a snapshot that is too large");
            }
            *snapshot = Some((message, length, Vec::new()));
            Ok(None)
        }
        Frame::SnapshotChunk(bytes) => {
            let Some((message, length, mut content)) = snapshot.take() else {
                return refused("it sends a piece of no snapshot");
            };
            content.extend_from_slice(&bytes);
            match length.checked_sub(content.len() as u64) {
                None => return refused("it sends more of a snapshot than it announced"),
                Some(0) => {}
                Some(_) => {
                    *snapshot = Some((message, length, content));
                    return Ok(None);
                }
            }
            let decoded = tokio::task::spawn_blocking(move || Image::decode(content.into())).await;
            let image = decoded.map_err(|problem| ConnectionError::Refused(problem.to_string()))??;
            Ok(Some((message, Some(image))))
        }
        _ => refused("it speaks for another member"),
    }
}
