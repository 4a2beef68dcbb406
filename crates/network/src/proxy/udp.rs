//! Datagrams passed on to a backend: one session a caller.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listeners::Front;
use crate::Backend;

/// A session without an answer for so long is over.
const IDLE: Duration = Duration::from_secs(60);
/// How many callers of one port have a session at a time.
const SESSIONS: usize = 1024;
const LARGEST: usize = 65_535;
/// Answers are rarely larger; a session that gets a larger one cuts it short.
const LARGEST_ANSWER: usize = 9_000;

struct Session {
    backend: Arc<UdpSocket>,
    answers: tokio::task::AbortHandle,
}

/// Passes datagrams on until it is aborted.
pub(super) async fn serve(socket: UdpSocket, front: Front) {
    let socket = Arc::new(socket);
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        // ICMP errors of earlier datagrams turn up as errors here; they are not about the next one.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        while tasks.try_join_next().is_some() {}
        if sessions.get(&from).is_none_or(|session| session.answers.is_finished()) {
            if sessions.len() >= SESSIONS {
                sessions.retain(|_, session| !session.answers.is_finished());
            }
            if sessions.len() >= SESSIONS {
                tracing::debug!(port = %front.port, "too many callers: a datagram is dropped");
                continue;
            }
            let Some((backend, to)) = open(&front, from).await else { continue };
            let answers = tasks.spawn(answer(socket.clone(), backend.clone(), from, front.clone(), to));
            sessions.insert(from, Session { backend, answers });
        }
        if let Some(session) = sessions.get(&from) {
            // What doesn't fit is lost, as on any network.
            let _ = session.backend.try_send(&buffer[..length]);
        }
    }
}

async fn open(front: &Front, from: SocketAddr) -> Option<(Arc<UdpSocket>, Backend)> {
    let backend = front.dialer.order(&front.port, front.scope, Some(from.ip())).into_iter().next()?;
    let any =
        if backend.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let connect = async || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(backend.address).await?;
        // The runtime refuses to send until it has asked the system once: the first datagram would be lost.
        socket.writable().await?;
        io::Result::Ok(socket)
    };
    match connect().await {
        Ok(socket) => {
            front.dialer.served(&front.port, from.ip(), backend.address);
            Some((Arc::new(socket), backend))
        }
        Err(error) => {
            tracing::debug!(port = %front.port, %error, "can't reach a backend");
            None
        }
    }
}

/// Carries the backend's answers back until there is none for long, the backend refuses, or its host is silent:
/// the caller's next datagram opens a new session then.
async fn answer(socket: Arc<UdpSocket>, backend: Arc<UdpSocket>, to: SocketAddr, front: Front, of: Backend) {
    let mut buffer = vec![0; LARGEST_ANSWER];
    let carry = async {
        while let Ok(Ok(length)) = timeout(IDLE, backend.recv(&mut buffer)).await {
            let _ = socket.send_to(&buffer[..length], to).await;
        }
    };
    tokio::select! {
        () = carry => {}
        () = front.dialer.silence(&of) => {}
    }
}
