//! Questions by connections: several at once on each, answered as answers come (RFC 7766).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug_span;

use crate::metrics::Way;
use crate::resolver::{Outcome, Resolver};

/// How many connections one listener has open.
const CONNECTIONS: usize = 256;
/// The most of them that one address has: no more programs of one pod ask at once by connections.
const OF_ONE: usize = 64;
/// How many questions of one connection are under way at once; further ones wait in the kernel.
const AT_ONCE: usize = 16;
/// After this many questions a connection is closed: a client that has more opens another one.
const MOST: usize = 1000;
/// A connection without a question or an answer for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A caller that doesn't take its answer in this time is let go.
const SLOW: Duration = Duration::from_secs(5);
/// The longest question that is read.
const LONGEST: usize = 4096;
/// The pause after the system had no socket left.
const BREATHER: Duration = Duration::from_millis(50);

/// Accepts until it is aborted.
pub(super) async fn serve(listener: TcpListener, resolver: Arc<Resolver>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let callers = Arc::new(Callers::default());
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "can't accept a connection");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let (Ok(place), Some(caller)) = (places.clone().try_acquire_owned(), callers.enter(from.ip())) else {
            tracing::debug!(%from, "too many connections: one more is closed");
            continue;
        };
        let resolver = resolver.clone();
        tasks::spawn(debug_span!("questions", %from), async move {
            if let Err(error) = converse(stream, from, &resolver).await {
                tracing::debug!(%error, "a connection ends");
            }
            drop((place, caller));
        });
    }
}

/// Who has how many connections.
#[derive(Debug, Default)]
struct Callers(Mutex<HashMap<IpAddr, usize>>);

/// A place among an address' connections; given back when it is dropped.
#[derive(Debug)]
struct Caller(Arc<Callers>, IpAddr);

impl Callers {
    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Caller> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Caller(self.clone(), from))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

async fn converse(mut stream: TcpStream, from: SocketAddr, resolver: &Resolver) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reading, mut writing) = stream.split();
    let mut received = BytesMut::new();
    let mut under_way = FuturesUnordered::new();
    let (mut questions, mut is_open) = (0, true);
    loop {
        while under_way.len() < AT_ONCE && questions < MOST {
            let Some(question) = next_of(&mut received)? else { break };
            questions += 1;
            match resolver.at_once(&question, from.ip(), Way::Tcp) {
                Outcome::Nothing => return Ok(()),
                Outcome::Answer(answer) => write(&mut writing, &answer).await?,
                Outcome::Later(request, plan) => {
                    under_way.push(async move { resolver.later(&request, plan, Way::Tcp).await });
                }
            }
        }
        let may_read = is_open && under_way.len() < AT_ONCE && questions < MOST;
        if !may_read && under_way.is_empty() {
            return Ok(());
        }
        let next = async {
            tokio::select! {
                Some(answer) = under_way.next() => Ok(Some(answer)),
                read = reading.read_buf(&mut received), if may_read => {
                    is_open = read? > 0;
                    io::Result::Ok(None)
                }
            }
        };
        match timeout(IDLE, next).await {
            Ok(Ok(Some(answer))) => write(&mut writing, &answer).await?,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
    }
}

/// The next whole question of what was received, if there is one.
fn next_of(received: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some((length, _)) = received.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a question is too long"));
    }
    if received.len() < 2 + length {
        return Ok(None);
    }
    received.advance(2);
    Ok(Some(received.split_to(length)))
}

async fn write(writing: &mut (impl AsyncWriteExt + Unpin), answer: &[u8]) -> io::Result<()> {
    // An answer is cut to this length.
    let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
    let frame = [&length.to_be_bytes(), answer].concat();
    timeout(SLOW, writing.write_all(&frame)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_taken_out_whole() {
        let mut received = BytesMut::new();
        assert_eq!(next_of(&mut received).unwrap(), None);
        received.extend_from_slice(&[0, 3, 1, 2]);
        assert_eq!(next_of(&mut received).unwrap(), None);
        received.extend_from_slice(&[3, 0]);
        assert_eq!(next_of(&mut received).unwrap().as_deref(), Some([1, 2, 3].as_slice()));
        assert_eq!(next_of(&mut received).unwrap(), None);
        received.extend_from_slice(&[0]);
        assert_eq!(next_of(&mut received).unwrap().as_deref(), Some([].as_slice()));
        received.extend_from_slice(&[255, 255]);
        assert!(next_of(&mut received).is_err());
    }

    #[test]
    fn one_address_has_so_many_connections_and_no_more() {
        let callers = Arc::new(Callers::default());
        let one = || callers.enter([10, 0, 0, 1].into());
        let mut places: Vec<_> = (0..OF_ONE).map(|_| one().unwrap()).collect();
        assert!(one().is_none());
        assert!(callers.enter([10, 0, 0, 2].into()).is_some());
        places.pop();
        assert!(one().is_some());
        drop(places);
        assert!(callers.0.lock().unwrap().is_empty());
    }
}
