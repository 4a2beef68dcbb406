//! Datagrams passed on to an endpoint: one session a caller.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::tasks::SpawnIn;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug_span;

use super::listeners::Front;
use crate::Endpoint;

/// A session of one question and one answer is over when nothing went either way for this long: most are (DNS), each from a port
/// of its own, and [`SESSIONS`] bounds them. Linux's default of `nf_conntrack_udp_timeout`.
const ASKED: Duration = Duration::from_secs(30);
/// A session of more answers is over when nothing went either way for this long: the least that RFC 4787 (section 4.3, REQ-5)
/// allows a translator, and Linux's default of `nf_conntrack_udp_timeout_stream`.
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
    /// Whether the caller sent anything since its answers were last waited for: many only send (syslog, statsd), and that keeps a
    /// session too (RFC 4787, REQ-6).
    goes_on: Arc<AtomicBool>,
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
        let known = sessions.get(&from).filter(|session| !session.answers.is_finished());
        if let Some(session) = known {
            session.goes_on.store(true, Ordering::Relaxed);
        } else {
            if sessions.len() >= SESSIONS {
                sessions.retain(|_, session| !session.answers.is_finished());
            }
            if sessions.len() >= SESSIONS {
                tracing::debug!(port = %front.port, "too many callers: a datagram is dropped");
                continue;
            }
            let Some((endpoint, to)) = open(&front, from).await else { continue };
            let goes_on = Arc::new(AtomicBool::new(false));
            let answers = tasks.spawn_in(
                debug_span!("answers", %from, service = %front.port),
                answer(socket.clone(), endpoint.clone(), from, front.clone(), to, goes_on.clone()),
            );
            sessions.insert(from, Session { endpoint, goes_on, answers });
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

/// Carries the endpoint's answers back until nothing goes either way for long, the endpoint refuses, or its host is silent:
/// the caller's next datagram opens a new session then.
async fn answer(
    socket: Arc<UdpSocket>,
    endpoint: Arc<UdpSocket>,
    to: SocketAddr,
    front: Front,
    of: Endpoint,
    goes_on: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; LARGEST_ANSWER];
    let carry = async {
        let (mut idle, mut answers) = (ASKED, 0_u64);
        loop {
            let answer = timeout(idle, endpoint.recv(&mut buffer)).await;
            let went_on = goes_on.swap(false, Ordering::Relaxed);
            match answer {
                Ok(Ok(length)) => {
                    let _ = socket.send_to(&buffer[..length], to).await;
                    answers += 1;
                    idle = if answers > 1 { STREAM } else { ASKED };
                }
                Ok(Err(_)) => return,
                // A caller that goes on keeps its endpoint, for as long as that is one.
                Err(_) if went_on && front.dialer.serves(&front.port, of.address) => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = carry => {}
        () = front.dialer.silence(&of) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::dial::Dialer;
    use crate::{PortId, Protocol, Scope, Served, ServiceChange, ServiceId, ServicePort};

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn serve_at(dialer: &Dialer, id: &PortId, addresses: &[SocketAddr]) {
        let hints = crate::Hints::default();
        let endpoint = |address: &SocketAddr| Endpoint { address: *address, node: None, ready: true, hints };
        let port = ServicePort {
            id: id.clone(),
            protocol: Protocol::Udp,
            number: 514,
            addresses: Vec::new(),
            node_port: None,
            balanced: Vec::new(),
            sources: Default::default(),
            affinity: None,
            internal_local: false,
            external_local: false,
            endpoints: addresses.iter().map(endpoint).collect(),
        };
        dialer
            .apply(&[ServiceChange::Served(Arc::new(Served { id: id.service.clone(), ports: vec![port] }))]);
    }

    async fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    /// Lets time pass. It stands still only meanwhile: else it would leap whenever a datagram is under way.
    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn who_goes_on_sending_keeps_its_endpoint_without_any_answer() {
        let (dialer, id) = (
            Arc::new(Dialer::new("n1")),
            PortId { service: ServiceId { namespace: "d".into(), name: "log".into() }, port: String::new() },
        );
        let ((a, at_a), (b, at_b)) = (bound().await, bound().await);
        serve_at(&dialer, &id, &[at_a, at_b]);
        let (socket, front) = bound().await;
        let of =
            Front { port: id.clone(), scope: Scope::Internal, address: LOCALHOST, dialer: dialer.clone() };
        let serving = tasks::spawn(tracing::info_span!("test"), serve(socket, of));
        let (caller, _) = bound().await;
        // Which endpoint hears the caller, and from where.
        let send = async || {
            caller.send_to(b"x", front).await.unwrap();
            let (mut first, mut second) = ([0; 8], [0; 8]);
            tokio::select! {
                heard = a.recv_from(&mut first) => (at_a, heard.unwrap().1),
                heard = b.recv_from(&mut second) => (at_b, heard.unwrap().1),
            }
        };
        let first = send().await;
        for _ in 0..8 {
            pass(ASKED * 2 / 3).await;
            assert_eq!(send().await, first);
        }
        let other = if first.0 == at_a { at_b } else { at_a };
        serve_at(&dialer, &id, &[other]);
        pass(ASKED).await;
        let moved = async {
            while send().await.0 != other {
                pass(ASKED).await
            }
        };
        timeout(Duration::from_secs(600), moved).await.expect("no one is kept to an endpoint that is gone");
        serving.abort();
    }
}
