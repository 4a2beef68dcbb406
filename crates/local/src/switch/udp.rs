//! Datagrams through the switch: each caller keeps the host that it first went to, until it falls silent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tasks::SpawnIn;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, Id, JoinSet};
use tracing::debug_span;

use super::run::Shared;
use super::table::Frontend;

/// How long a caller is remembered after the last answer to it.
const IDLE: Duration = Duration::from_secs(10);
/// The most callers that one address remembers.
const MOST_CALLERS: usize = 1024;
const LONGEST: usize = 65_535;

struct Caller {
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

/// Passes datagrams on until it is aborted.
pub async fn serve(frontend: Frontend, socket: UdpSocket, shared: Shared) {
    let socket = Arc::new(socket);
    let mut callers: HashMap<SocketAddr, Caller> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                if !callers.contains_key(&from) && callers.len() < MOST_CALLERS
                    && let Some(upstream) = connect(frontend, &shared).await
                {
                    let upstream = Arc::new(upstream);
                    let task = answers.spawn_in(debug_span!("answers", %from), answer(upstream.clone(), socket.clone(), from));
                    callers.insert(from, Caller { socket: upstream, task });
                }
                if let Some(caller) = callers.get(&from) {
                    // A datagram may be lost.
                    let _ = caller.socket.send(&buffer[..length]).await;
                }
            }
            Some(ended) = answers.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                forget(&mut callers, id);
            }
        }
    }
}

fn forget(callers: &mut HashMap<SocketAddr, Caller>, id: Id) {
    callers.retain(|_, caller| caller.task.id() != id);
}

async fn connect(frontend: Frontend, shared: &Shared) -> Option<UdpSocket> {
    let target = shared.targets(frontend).into_iter().next()?;
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    Some(socket)
}

async fn answer(upstream: Arc<UdpSocket>, socket: Arc<UdpSocket>, caller: SocketAddr) {
    let mut buffer = vec![0; LONGEST];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, upstream.recv(&mut buffer)).await {
        // A datagram may be lost.
        let _ = socket.send_to(&buffer[..length], caller).await;
    }
}
