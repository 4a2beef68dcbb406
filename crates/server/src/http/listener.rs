//! Listeners: TLS connections in, each with limits to what it may use up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::{Body, Identity};
use crate::server::Server;

/// How long requests in flight get when a listener stops.
const FAREWELL: Duration = Duration::from_millis(250);
/// Rest after an error of `accept` (no file descriptors left), so that it isn't repeated without end.
const ACCEPT_REST: Duration = Duration::from_millis(50);

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
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 10_000,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(10),
            header_bytes: 1 << 20,
        }
    }
}

/// A listener at work. When this is dropped it stops and closes its connections.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    _stop: watch::Sender<()>,
}

impl Listening {
    /// The address bound, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
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
    tokio::spawn(accept(server, listener, TlsAcceptor::from(Arc::new(tls)), stopped));
    Ok(Listening { address, _stop: stop })
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tls: TlsAcceptor,
    mut stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(server.limits().connections));
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            _ = stopped.changed() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (server, tls, stopped) = (server.clone(), tls.clone(), stopped.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    serve(server, stream, tls, stopped).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection to the API");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn serve(server: Arc<Server>, stream: TcpStream, tls: TlsAcceptor, mut stopped: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
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
    let who = certificates.and_then(|chain| chain.first()).and_then(Identity::of_certificate);

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
        let (server, who) = (server.clone(), who.clone());
        let answer: BoxFuture<'static, _> = Box::pin(async move {
            let request: Request<Body> = request.map(|body| body.boxed_unsync());
            Ok::<_, std::convert::Infallible>(server.handle(request, who).await)
        });
        answer
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(FAREWELL, connection).await;
        }
    }
}
