//! Connections from peers: finds out which peer it is, then takes what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use raft::eraftpb::Message;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use tasks::SpawnIn;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::info_span;

use super::arriving::Arriving;
use super::{ConnectionError, Event, Shared, read_frame, tune};
use crate::embedded::command::{Command, Response};
use crate::embedded::image::Image;
use crate::embedded::membership::{MemberChange, MemberRecord, Membership};
use crate::embedded::wire::{Caller, Frame, OTHER_VERSION, Refusal, SNAPSHOT_LIMIT, VERSION};
use crate::{Error, MemberError, MemberId, Sealing};

/// A connection must say who it is within this time: many times what a handshake takes on a slow machine.
const HELLO: Duration = Duration::from_secs(2);
/// The most connections that may be saying who they are at a time.
const STRANGERS: usize = 64;
/// The most messages of one peer that may wait to be handled.
const WAITING: usize = 1024;

/// Takes connections for as long as it runs.
pub async fn run(shared: Arc<Shared>, listener: TcpListener, callers: mpsc::Sender<Caller>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let (known, mut arrivals) = mpsc::channel::<(Caller, TlsStream<TcpStream>, BytesMut)>(1);
    let mut connections = JoinSet::new();
    let mut current: BTreeMap<MemberId, AbortHandle> = BTreeMap::new();
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
                connections.spawn_in(info_span!("welcome", %address), async move {
                    match welcome(&shared, stream).await {
                        // The receiver lives as long as this set of tasks.
                        Ok(Some(arrival)) => drop(known.send(arrival).await),
                        Ok(None) => {}
                        Err(problem) => tracing::warn!(%address, %problem, "turned a connection away"),
                    }
                    drop(permit);
                });
            }
            Some((caller, stream, buffer)) = arrivals.recv() => {
                current.retain(|_, task| !task.is_finished());
                shared.roster.heard(caller.id);
                if shared.members.borrow().get(caller.id).is_none() {
                    // The roster ends with this task.
                    let _ = callers.send(caller.clone()).await;
                }
                let task = connections.spawn_in(info_span!("from member", member = caller.name, id = %caller.id), listen(shared.clone(), caller.clone(), stream, buffer));
                if let Some(old) = current.insert(caller.id, task) {
                    old.abort();
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type Arrival = (Caller, TlsStream<TcpStream>, BytesMut);

/// Finds out who connected and what for: none where all is done by then.
async fn welcome(shared: &Shared, stream: TcpStream) -> Result<Option<Arrival>, ConnectionError> {
    tune(&stream, shared.timing.silence)?;
    let accepting = TlsAcceptor::from(shared.server_tls.clone()).accept(stream);
    let mut stream = timeout(HELLO, accepting).await??;
    let mut buffer = BytesMut::new();
    match timeout(HELLO, greet(shared, &mut stream, &mut buffer)).await? {
        Ok(caller) if caller.id == MemberId::NONE => {
            let answer = admit(shared, &caller).await;
            say(&mut stream, answer).await;
            Ok(None)
        }
        Ok(caller) => Ok(Some((caller, stream, buffer))),
        Err(problem) => {
            let why = match &problem {
                ConnectionError::TurnedAway(refusal) => refusal.clone(),
                problem => Refusal::Never(problem.to_string()),
            };
            say(&mut stream, Frame::Refused(why)).await;
            Err(problem)
        }
    }
}

/// Says the last word on a connection, and waits until the other side has heard it: hanging up on what it sends
/// meanwhile would make its kernel throw the word away.
async fn say(stream: &mut TlsStream<TcpStream>, frame: Frame) {
    let saying = async {
        stream.write_all(&frame.encode()).await?;
        stream.shutdown().await?;
        tokio::io::copy(stream, &mut tokio::io::sink()).await
    };
    // A caller that does not hear it will ask again.
    let _ = timeout(HELLO, saying).await;
}

/// Learns who the caller is. The certificate must be for the name that it gives.
async fn greet(
    shared: &Shared,
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut BytesMut,
) -> Result<Caller, ConnectionError> {
    let never = |why: String| ConnectionError::TurnedAway(Refusal::Never(why));
    let (cluster, caller) = match read_frame(stream, buffer).await {
        Ok(Some(Frame::Hello { cluster, caller })) => (cluster, caller),
        Ok(_) => return Err(never("it did not say hello".into())),
        Err(ConnectionError::Malformed(problem)) if problem == OTHER_VERSION => {
            let me = &shared.me.name;
            return Err(never(format!(
                "{me} speaks version {VERSION} of the members' protocol, it another one"
            )));
        }
        Err(problem) => return Err(problem),
    };
    if cluster != shared.cluster {
        return Err(never(format!("it is of cluster {cluster:?}, {} of another one", shared.me.name)));
    }
    let refused = || never(format!("it has no certificate for {:?}", caller.name));
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or_else(refused)?;
    let name = ServerName::try_from(caller.name.as_str()).map_err(|_| refused())?;
    ParsedCertificate::try_from(certificate)
        .and_then(|certificate| verify_server_name(&certificate, &name))
        .map_err(|_| refused())?;
    let members = shared.members.borrow();
    if members.is_removed(caller.id) {
        return Err(ConnectionError::TurnedAway(Refusal::Removed));
    }
    if caller.id == shared.me.id || members.get(caller.id).is_some_and(|known| known.name != caller.name) {
        return Err(never(format!("member {} is not {:?}", caller.id, caller.name)));
    }
    Ok(caller)
}

/// Lets a member in that comes with an empty folder.
async fn admit(shared: &Shared, caller: &Caller) -> Frame {
    let change = MemberChange::Join { name: caller.name.clone(), address: caller.address };
    let (answer, answered) = oneshot::channel();
    (shared.sink)(Event::Joins(Command::Members(change).encode(), answer));
    let answer = match answered.await {
        Ok(Ok(Response::Member(id))) => {
            let members = shared.members.borrow();
            let others = members.iter().filter(|(other, record)| *other != id && record.joined);
            let caller = |(id, record): (MemberId, &MemberRecord)| Caller {
                id,
                name: record.name.clone(),
                address: record.address,
            };
            tracing::info!(member = caller_name(&members, id), %id, "a member was let in");
            return Frame::Admitted { id, others: others.map(caller).collect() };
        }
        Ok(Ok(_)) | Err(_) => Refusal::Later("its store is shutting down".into()),
        Ok(Err(Error::Members(why @ (MemberError::TooMany(_) | MemberError::AddressTaken(_))))) => {
            Refusal::Never(why.to_string())
        }
        Ok(Err(why)) => Refusal::Later(why.to_string()),
    };
    Frame::Refused(answer)
}

fn caller_name(members: &Membership, id: MemberId) -> &str {
    members.get(id).map_or("", |record| &record.name)
}

/// Takes what a peer says until it stops, or is no member any more.
async fn listen(shared: Arc<Shared>, peer: Caller, mut stream: TlsStream<TcpStream>, mut buffer: BytesMut) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut snapshot: Option<Arriving> = None;
    let mut members = shared.members.clone();
    loop {
        let frame = tokio::select! {
            frame = read_frame(&mut stream, &mut buffer) => frame,
            changed = members.changed() => {
                if changed.is_err() {
                    // The driver has ended.
                    return;
                }
                if members.borrow().is_removed(peer.id) {
                    return say(&mut stream, Frame::Refused(Refusal::Removed)).await;
                }
                continue;
            }
        };
        let next = match frame {
            Ok(Some(frame)) => take(&peer, &mut snapshot, frame, &shared.sealing).await,
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
    peer: &Caller,
    snapshot: &mut Option<Arriving>,
    frame: Frame,
    sealing: &Sealing,
) -> Result<Arrived, ConnectionError> {
    let refused = |what: &str| Err(ConnectionError::Refused(what.into()));
    match frame {
        Frame::Message(message) if message.from == peer.id.0 => Ok(Some((message, None))),
        Frame::SnapshotStart { message, length } if message.from == peer.id.0 => {
            if length > SNAPSHOT_LIMIT {
                return refused("it offers a snapshot that is too large");
            }
            *snapshot = Some(Arriving::new(message, length, sealing.clone()));
            Ok(None)
        }
        Frame::SnapshotChunk(bytes) => {
            let Some(arriving) = snapshot.take() else {
                return refused("it sends a piece of no snapshot");
            };
            let arriving = arriving.add(bytes).await?;
            if arriving.is_whole() {
                let (message, image) = arriving.finish().await?;
                return Ok(Some((message, Some(image))));
            }
            *snapshot = Some(arriving);
            Ok(None)
        }
        _ => refused("it speaks for another member"),
    }
}
