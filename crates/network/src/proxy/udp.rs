//! Datagrams passed on to an endpoint: one session a caller.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::tasks::SpawnIn;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug_span;

use super::listeners::Front;
use crate::Endpoint;

/// A session of one question and one answer is over after this long: most are (DNS), each from a port of its own, and
/// [`SESSIONS`] bounds them. Linux's default of `nf_conntrack_udp_timeout`.
const ASKED: Duration = Duration::from_secs(30);
/// A session of more answers is over when none came for this long: the least that RFC 4787 (section 4.3, REQ-5) allows a
/// translator, and Linux's default of `nf_conntrack_udp_timeout_stream`.
const STREAM: Duration = Duration::from_secs(120);
/// How many callers of one port have a session at a time. Each has a socket and room for an answer: 9 MB for all of them.
const SESSIONS: usize = 1024;
/// The most that a datagram's length can say.
const LARGEST: usize = 65_535;
/// Answers are rarely larger; a session that gets a larger one cuts it short. As much as a jumbo frame carries: longer ones
/// travel in fragments, which senders avoid (RFC 8085, section 3.2), and room for the longest would be seven times as much.
const LARGEST_ANSWER: usize = 9_000;

struct Session {
    endpoint: Arc<UdpSocket>,
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
            let Some((endpoint, to)) = open(&front, from).await else { continue };
            let answers = tasks.spawn_in(
                debug_span!("answers", %from, service = %front.port),
                answer(socket.clone(), endpoint.clone(), from, front.clone(), to),
            );
            sessions.insert(from, Session { endpoint, answers });
        }
        if let Some(session) = sessions.get(&from) {
            // What doesn't fit is lost, as on any network.
            // Waiting for room would hold up the other callers of this port.
            let _ = session.endpoint.try_send(&buffer[..length]);
        }
    }
}

async fn open(front: &Front, from: SocketAddr) -> Option<(Arc<UdpSocket>, Endpoint)> {
    let endpoint = front.dialer.order(&front.port, front.scope, Some(from.ip())).into_iter().next()?;
    let any =
        if endpoint.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let connect = async || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(endpoint.address).await?;
        // The runtime refuses to send until it has asked the system once: the first datagram would be lost.
        socket.writable().await?;
        io::Result::Ok(socket)
    };
    match connect().await {
        Ok(socket) => {
            front.dialer.served(&front.port, from.ip(), endpoint.address);
            Some((Arc::new(socket), endpoint))
        }
        Err(error) => {
            tracing::debug!(port = %front.port, %error, "can't reach an endpoint");
            None
        }
    }
}

/// Carries the endpoint's answers back until there is none for long, the endpoint refuses, or its host is silent:
/// the caller's next datagram opens a new session then.
async fn answer(
    socket: Arc<UdpSocket>,
    endpoint: Arc<UdpSocket>,
    to: SocketAddr,
    front: Front,
    of: Endpoint,
) {
    let mut buffer = vec![0; LARGEST_ANSWER];
    let carry = async {
        let mut idle = ASKED;
        for answers in 1_u64.. {
            let Ok(Ok(length)) = timeout(idle, endpoint.recv(&mut buffer)).await else { return };
            let _ = socket.send_to(&buffer[..length], to).await;
            idle = if answers > 1 { STREAM } else { ASKED };
        }
    };
    tokio::select! {
        () = carry => {}
        () = front.dialer.silence(&of) => {}
    }
}
