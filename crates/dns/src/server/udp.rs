//! Questions by datagrams.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tracing::debug_span;

use crate::metrics::Way;
use crate::resolver::{Outcome, Resolver};

/// The longest question that is read: a name has 255 bytes, and what is said by EDNS is short.
const LONGEST: usize = 4096;
/// How many questions of one socket wait for others.
const WAITING: usize = 1024;
/// The pause after the system gave no datagram.
const BREATHER: Duration = Duration::from_millis(10);

/// Answers until it is aborted.
pub(super) async fn serve(socket: UdpSocket, resolver: Arc<Resolver>) {
    let socket = Arc::new(socket);
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // ICMP errors of earlier answers turn up here; they are not about the next question.
                tracing::debug!(%error, "can't receive a question");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        // An answer may be lost, as any datagram.
        match resolver.at_once(&buffer[..length], from.ip(), Way::Udp) {
            Outcome::Nothing => {}
            Outcome::Answer(answer) => _ = socket.send_to(&answer, from).await,
            Outcome::Later(request, plan) => match waiting.clone().try_acquire_owned() {
                Ok(place) => {
                    let (socket, resolver) = (socket.clone(), resolver.clone());
                    tasks::spawn(debug_span!("question", %from), async move {
                        let answer = resolver.later(&request, plan, Way::Udp).await;
                        let _ = socket.send_to(&answer, from).await;
                        drop(place);
                    });
                }
                Err(_) => _ = socket.send_to(&resolver.too_much(&request, Way::Udp), from).await,
            },
        }
    }
}
