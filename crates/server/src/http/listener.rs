//! Listeners: TLS connections in, each with limits to what it may use up.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Body;
use crate::clock;
use crate::server::Server;

/// How long requests in flight get when a listener stops.
const FAREWELL: Duration = Duration::from_millis(250);
/// Rest after an error of `accept` (no file descriptors left), so that it isn't repeated without end.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a connection may be quiet until the other side is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What clients may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of one listener at the same time; more wait.
    pub connections: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's headers may take.
    pub headers: Duration,
    /// How large a request's headers may be, in bytes.
    pub header_bytes: usize,
    /// How many requests run at the same time, over all priority levels but the exempt one; more wait or are
    /// refused, as their level says (upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`
    /// together).
    pub seats: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 16_384,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(10),
            header_bytes: 1 << 20,
            seats: 600,
        }
    }
}

/// A listener at work. When this is dropped it stops and closes its connections.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    open: Arc<Open>,
    _stop: watch::Sender<()>,
}

impl Listening {
    /// The address bound, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections before this returns: for an address that is about to leave this host. Nothing
    /// can be sent from it afterwards, and callers that aren't told would wait for answers for long.
    pub fn hang_up(&self) {
        for connection in self.open.lock().values() {
            // One that has ended by itself needs no end.
            let _ = SockRef::from(connection).shutdown(Shutdown::Both);
        }
    }
}

/// The sockets of a listener's connections, by number.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<u64, OwnedFd>>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is among the open ones until this is dropped.
struct Listed {
    open: Arc<Open>,
    number: u64,
}

impl Listed {
    fn new(open: Arc<Open>, number: u64, stream: &TcpStream) -> io::Result<Self> {
        open.lock().insert(number, stream.as_fd().try_clone_to_owned()?);
        Ok(Listed { open, number })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

/// Serves.
pub(crate) fn listen(
    server: Arc<Server>,
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
) -> Result<Listening, io::Error> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let mut tls = ServerConfig::clone(&tls);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (stop, stopped) = watch::channel(());
    let open = Arc::new(Open::default());
    tokio::spawn(accept(server, listener, TlsAcceptor::from(Arc::new(tls)), open.clone(), stopped));
    Ok(Listening { address, open, _stop: stop })
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tls: TlsAcceptor,
    open: Arc<Open>,
    mut stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(server.limits().connections));
    for number in 0.. {
        let accepted = async {
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else { pending().await };
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            _ = stopped.changed() => return,
            accepted = accepted => accepted,
        };
        let listed =
            accepted.and_then(|(stream, _)| Ok((Listed::new(open.clone(), number, &stream)?, stream)));
        match listed {
            Ok((listed, stream)) => {
                let (server, tls, stopped) = (server.clone(), tls.clone(), stopped.clone());
                tokio::spawn(async move {
                    let held = Connection { _held: Arc::new((slot, listed)), stopped: stopped.clone() };
                    serve(server, stream, tls, stopped, held).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection to the API");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// A client's connection, for what lasts longer than HTTP on it: until the last of these is dropped it counts among
/// the listener's, and ends with it.
#[derive(Clone)]
pub(crate) struct Connection {
    _held: Arc<(OwnedSemaphorePermit, Listed)>,
    stopped: watch::Receiver<()>,
}

impl Connection {
    /// Waits until the listener stops.
    pub(crate) async fn stopped(&mut self) {
        let _ = self.stopped.changed().await;
    }
}

async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    tls: TlsAcceptor,
    mut stopped: watch::Receiver<()>,
    held: Connection,
) {
    let _ = stream.set_nodelay(true);
    // A client that lost power says nothing: what it left open would stay so for ever.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2).with_retries(3);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a connection can't be kept alive");
    }
    let limits = server.limits().clone();
    let handshake = timeout(limits.handshake, tls.accept(stream));
    let stream = tokio::select! {
        _ = stopped.changed() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let who = certificates.and_then(|chain| chain.first()).and_then(|c| server.shown_by(c, clock::now()));

    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(limits.header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(250)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, who, held) = (server.clone(), who.clone(), held.clone());
        let answer: BoxFuture<'static, _> = Box::pin(async move {
            let mut request: Request<Body> = request.map(|body| body.boxed_unsync());
            request.extensions_mut().insert(held);
            Ok::<_, std::convert::Infallible>(server.handle(request, who).await)
        });
        answer
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(FAREWELL, connection).await;
        }
    }
}
