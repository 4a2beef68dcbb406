//! Connections passed on to a backend.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::listeners::Front;

/// What one direction of one connection may hold in memory.
const BUFFER: usize = 8 * 1024;
/// The pause after the system had no socket left.
const BREATHER: Duration = Duration::from_millis(50);

/// Accepts until it is aborted. Connections outlast their listener: a Service's change or end doesn't cut
/// those that are open, only the silence of a backend's host does.
pub(super) async fn serve(listener: TcpListener, front: Front, connections: Arc<Semaphore>) {
    loop {
        let (caller, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(port = %front.port, %error, "can't accept a connection");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let Ok(place) = connections.clone().try_acquire_owned() else {
            tracing::warn!(port = %front.port, "too many connections: one more is refused");
            reset(&caller);
            continue;
        };
        let front = front.clone();
        tokio::spawn(async move {
            pass_on(caller, from, &front).await;
            drop(place);
        });
    }
}

async fn pass_on(mut caller: TcpStream, from: SocketAddr, front: &Front) {
    let (mut stream, backend) = match front.dialer.connect(&front.port, front.scope, Some(from.ip())).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(port = %front.port, %error, "a caller finds nobody");
            return reset(&caller);
        }
    };
    // Small messages must not wait for their like.
    let _ = caller.set_nodelay(true);
    let _ = stream.set_nodelay(true);
    let copied = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut caller, &mut stream, BUFFER, BUFFER) => copied,
        () = front.dialer.silence(&backend) => Err(io::ErrorKind::HostUnreachable.into()),
    };
    if copied.is_err() {
        // An end that looks orderly could pass for a whole answer.
        reset(&caller);
        reset(&stream);
    }
}

/// Makes the end of this connection a reset (`SO_LINGER` of 0, socket(7)).
fn reset(stream: &TcpStream) {
    // If the system refuses, the connection ends the ordinary way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
