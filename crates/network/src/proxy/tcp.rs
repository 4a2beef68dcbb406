//! Connections passed on to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::info_span;

use super::listeners::Front;
use super::opening::Opening;

/// What one direction of one connection may hold in memory.
///
/// Both directions of 10,000 connections, the most that a host carries, are 160 MB if all of them are stuck.
const BUFFER: usize = 8 * 1024;
/// How much of an opening is taken at a time.
const PIECE: usize = 1024;
/// How many endpoints may be lost to one caller.
///
/// Each may take a host's silence, 250 ms, to be noticed: after a second the caller hears the truth.
const ENDPOINTS: usize = 4;
/// The pause after the system had no socket left.
const BREATHER: Duration = Duration::from_millis(50);

/// Accepts until it is aborted. Connections outlast their listener: a Service's change or end doesn't cut
/// those that are open, only the silence of an endpoint's host does.
pub(super) async fn serve(listener: TcpListener, front: Front, connections: Arc<Semaphore>) {
    loop {
        let (caller, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(port = %front.port, %error, "can't accept a connection");
                // Without a file left `accept` fails again at once, for as long as the connection waits.
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        // Refused rather than left waiting: a caller that waits in the kernel's queue looks like one that is served,
        // and hangs.
        let Ok(place) = connections.clone().try_acquire_owned() else {
            tracing::warn!(port = %front.port, "too many connections: one more is refused");
            reset(&caller);
            continue;
        };
        let (front, mut caller) = (front.clone(), caller);
        tasks::spawn(info_span!("proxied", %from, service = %front.port), async move {
            tokio::select! {
                () = pass_on(&mut caller, from, &front) => {}
                () = front.leaving() => reset(&caller),
            }
            drop(place);
        });
    }
}

/// How the opening of a connection ended.
enum Opened {
    /// The endpoint has answered this, which the caller hasn't heard yet; or nothing so far, but it can't be
    /// exchanged for another one any more.
    Yes(Vec<u8>),
    /// The endpoint is lost, and the caller has heard nothing from it.
    Lost,
    /// The caller is gone.
    Gone,
}

async fn pass_on(caller: &mut TcpStream, from: SocketAddr, front: &Front) {
    // Small messages must not wait for their like.
    let _ = caller.set_nodelay(true);
    let mut opening = Opening::default();
    for _ in 0..ENDPOINTS {
        let connected = front.dialer.connect(&front.port, front.scope, Some(from.ip())).await;
        let (mut stream, endpoint) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(port = %front.port, %error, "a caller finds nobody");
                break;
            }
        };
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = open(caller, &mut stream, &mut opening) => opened,
            () = front.dialer.silence(&endpoint) => Opened::Lost,
        };
        match opened {
            Opened::Yes(first) => {
                drop(opening);
                let copy = async {
                    caller.write_all(&first).await?;
                    copy_bidirectional_with_sizes(caller, &mut stream, BUFFER, BUFFER).await
                };
                let copied = tokio::select! {
                    copied = copy => copied,
                    () = front.dialer.silence(&endpoint) => Err(io::ErrorKind::HostUnreachable.into()),
                };
                if copied.is_err() {
                    reset(&stream);
                    break;
                }
                return;
            }
            Opened::Lost => {
                reset(&stream);
                if !opening.is_repeatable() {
                    break;
                }
            }
            Opened::Gone => return reset(&stream),
        }
    }
    // An end that looks orderly could pass for a whole answer.
    reset(caller);
}

/// Says to an endpoint what the caller has said so far and goes on, until the first answer.
async fn open(caller: &mut TcpStream, stream: &mut TcpStream, opening: &mut Opening) -> Opened {
    if stream.write_all(opening.said()).await.is_err() {
        return Opened::Lost;
    }
    let (mut said, mut answer) = ([0; PIECE], [0; PIECE]);
    loop {
        let room = opening.room().min(PIECE);
        if room == 0 {
            return Opened::Yes(Vec::new());
        }
        tokio::select! {
            read = caller.read(&mut said[..room]) => match read {
                // The copying both ways meets the end of what the caller says once more, and passes it on.
                Ok(0) => return Opened::Yes(Vec::new()),
                Ok(length) => {
                    opening.add(&said[..length]);
                    if stream.write_all(&said[..length]).await.is_err() {
                        return Opened::Lost;
                    }
                }
                Err(_) => return Opened::Gone,
            },
            read = stream.read(&mut answer) => match read {
                // An end without an answer is passed on the same way.
                Ok(length) => return Opened::Yes(answer[..length].to_vec()),
                Err(_) => return Opened::Lost,
            },
        }
    }
}

/// Makes the end of this connection a reset (`SO_LINGER` of 0, socket(7)).
fn reset(stream: &TcpStream) {
    // If the system refuses, the connection ends the ordinary way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
