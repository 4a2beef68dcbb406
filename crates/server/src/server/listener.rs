//! Listeners: TLS connections in, each with limits to what it may use up.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use access::ShownCertificate;
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
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::info_span;

use super::Server;
use crate::http::Body;
use crate::http::connection::{Connection, Disbelieved};
use crate::http::patience::{Heard, Patience};
use crate::http::socket::{Open, Socket};

/// How long requests in flight get when a listener stops: a write takes a few commits of some milliseconds, and as long as
/// this a host that ends is missed by nobody (heartbeats call it silent after 250 ms).
const FAREWELL: Duration = Duration::from_millis(250);
/// Rest after an error of `accept` (no file descriptors left), so that it isn't repeated without end.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// The shortest time between two such errors in the log.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// How long a connection may be quiet until the other side is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);

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

    /// Waits until nothing is under way that is soon over: connections that begin, and requests without an answer. Long answers, such as
    /// a watch, count until they begin.
    pub async fn calm(&self) {
        self.open.calm().await;
    }

    /// Ends all connections before this returns: for an address that is about to leave this host. Nothing
    /// can be sent from it afterwards, and callers that see no end would wait for their answers for long.
    pub fn hang_up(&self) {
        self.open.shut();
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
    tasks::spawn(
        info_span!("API", %address),
        accept(server, listener, TlsAcceptor::from(Arc::new(tls)), open.clone(), stopped),
    );
    Ok(Listening { address, open, _stop: stop })
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tls: TlsAcceptor,
    open: Arc<Open>,
    mut stopped: watch::Receiver<()>,
) {
    let mut complained = None;
    loop {
        // The place first: a connection for which there is none waits in the kernel, where it costs this process no
        // file.
        let accepted = async { (server.places.wait().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            _ = stopped.changed() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let stream = Arc::new(stream);
                let connection = server.places.enter(place, peer.ip(), open.add(&stream), stopped.clone());
                tasks::spawn(
                    info_span!("connection", %peer),
                    serve(server.clone(), stream, tls.clone(), connection, open.clone()),
                );
            }
            Err(error) => {
                server.places.make_room();
                let now = server.registry.edge().instant();
                if complained.is_none_or(|before| now.saturating_duration_since(before) > COMPLAIN_EVERY) {
                    tracing::warn!(%error, "can't accept a connection to the API");
                    complained = Some(now);
                }
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn serve(
    server: Arc<Server>,
    stream: Arc<TcpStream>,
    tls: TlsAcceptor,
    mut connection: Connection,
    open: Arc<Open>,
) {
    // Until its first request is one.
    let arriving = Mutex::new(Some(open.begin()));
    let _ = stream.set_nodelay(true);
    // A client that lost power says nothing: what it left open would stay so for ever.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2).with_retries(3);
    if let Err(error) = SockRef::from(&*stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a connection can't be kept alive");
    }
    let limits = server.limits.clone();
    let ending = connection.clone();
    let heard = Heard::default();
    let (until_gone, gone) = oneshot::channel();
    let socket = Socket::new(stream.clone(), heard.clone(), until_gone);
    let handshake = timeout(limits.handshake, tls.accept(socket));
    let encrypted = tokio::select! {
        () = connection.stopped() => return,
        () = ending.has_to_end() => return break_off(&stream),
        done = handshake => match done {
            Ok(Ok(encrypted)) => encrypted,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    let certificates = encrypted.get_ref().1.peer_certificates();
    let shows = certificates.is_some_and(|chain| !chain.is_empty());
    let shown = certificates
        .and_then(|chain| chain.first())
        .and_then(|c| server.shown_by(c, server.registry.edge().second()))
        .map(Arc::new);
    if let Some(who) = shown.as_ref().and_then(|shown| server.speaks_for(shown)) {
        // Where there is no place for it, its requests hear so.
        let _ = connection.know(who);
    }
    // Followed before the first request is heard: what one begins ends also where its certificate is taken back while it begins.
    let changes = server.revocations.changes();
    let taken_back =
        taken_back(server.clone(), shown.clone().filter(|shown| !server.is_revoked(shown)), changes);

    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(Patience { heard, headers: limits.headers })
        .header_read_timeout(limits.idle)
        // hyper panics below 8192.
        .max_buf_size(limits.header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(250)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    let asking = connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, asking) = (server.clone(), asking.clone());
        // At each request: a connection may live for long.
        let who = shown.as_ref().and_then(|shown| server.speaks_for(shown)).cloned();
        asking.has_asked();
        let under_way = open.begin();
        drop(arriving.lock().unwrap_or_else(PoisonError::into_inner).take());
        let answer: BoxFuture<'static, _> = Box::pin(async move {
            let mut request: Request<Body> = request.map(|body| body.boxed_unsync());
            request.extensions_mut().insert(asking);
            if shows && who.is_none() {
                request.extensions_mut().insert(Disbelieved);
            }
            let answer = server.handle(request, who).await;
            drop(under_way);
            Ok::<_, std::convert::Infallible>(answer)
        });
        answer
    });
    // HTTP/2 has no time of its own for the first request, nor has what finds out which HTTP it is.
    let never_asked = async {
        sleep(limits.headers).await;
        if ending.did_ask() {
            pending().await
        }
    };
    let http = builder.serve_connection_with_upgrades(TokioIo::new(encrypted), service);
    let mut taken_back = std::pin::pin!(taken_back);
    {
        let mut http = std::pin::pin!(http);
        tokio::select! {
            _ = http.as_mut() => {}
            () = never_asked => return tracing::debug!("no request came on a connection"),
            () = ending.has_to_end() => return break_off(&stream),
            () = taken_back.as_mut() => return break_off(&stream),
            () = connection.stopped() => {
                http.as_mut().graceful_shutdown();
                let _ = timeout(FAREWELL, http).await;
                return;
            }
        }
    }
    // What has left HTTP, such as an `exec`, has the socket now, and listens for its end.
    tokio::select! {
        _ = gone => {}
        () = taken_back => ending.cut(),
        () = connection.stopped() => {}
    }
}

/// Waits until a certificate that is good is taken back: what is open then, such as a watch, ends. Who comes with one that was taken back
/// before hears that from each request.
async fn taken_back(
    server: Arc<Server>,
    good: Option<Arc<ShownCertificate>>,
    mut changes: watch::Receiver<()>,
) {
    if let Some(shown) = good {
        while changes.changed().await.is_ok() {
            if server.is_revoked(&shown) {
                return;
            }
        }
    }
    pending().await
}

/// What the other side hasn't read isn't kept for it, neither here nor in the kernel.
fn break_off(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection can't be broken off");
    }
}
