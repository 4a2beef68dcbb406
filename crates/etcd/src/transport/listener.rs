//! The server's side: connections in, calls to their methods.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::{BoxFuture, ready};
use futures::stream::unfold;
use grpc::{Code, Frames, Messages, Status};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tasks::SpawnIn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug_span, info_span};

use super::authority::OneAuthority;
use super::together::together;

/// The longest message that is taken: etcd's 1.5 MiB for a request and half a MiB for what surrounds it.
const MOST_MESSAGE_BYTES: usize = (3 << 19) + (1 << 19);
/// Connections at the same time; more wait.
const MOST_CONNECTIONS: usize = 1000;
/// Calls of one connection at the same time.
const MOST_CALLS: u32 = 1000;
/// How long a client may take for the TLS handshake, so that silent ones can't use all connections up.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer from which nothing comes is asked whether it is there, and gets as long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Rest after an error of `accept` (no file descriptors left), so that it isn't repeated without end.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How many answers may wait for the network; a method that makes more waits too.
const WAITING_ANSWERS: usize = 8;

/// An answer on its way out.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The methods of a server, by path.
pub trait Router: Send + Sync + 'static {
    /// Carries a call out.
    fn call(self: Arc<Self>, path: String, question: Messages) -> BoxFuture<'static, Answer>;
}

/// Where a streaming method puts its messages.
#[derive(Debug, Clone)]
pub struct Answers(mpsc::Sender<Bytes>);

impl Answers {
    /// Sends one, once there is room.
    pub async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let gone = |_| Status::new(Code::Cancelled, "the client has gone");
        self.0.send(Frames::encode(message)).await.map_err(gone)
    }
}

/// Answers a call of one message with one.
pub async fn answer_unary<Q, A, F>(mut question: Messages, method: impl FnOnce(Q) -> F) -> Answer
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Status>>,
{
    let outcome = async {
        let missing = || Status::new(Code::InvalidArgument, "the call brought no message");
        let message = question.next().await?.ok_or_else(missing)?;
        method(message).await
    };
    let parts = match outcome.await {
        Ok(message) => vec![Frame::data(Frames::encode(&message)), Frame::trailers(Status::trailers(Ok(())))],
        Err(status) => return refused(status),
    };
    answer(futures::stream::iter(parts.into_iter().map(Ok)))
}

/// Answers a call with a stream; `method` runs until it ends or the client goes.
pub fn answer_stream<F>(method: impl FnOnce(Answers) -> F) -> Answer
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_ANSWERS);
    let mut running = JoinSet::new();
    running.spawn_in(debug_span!("streaming call"), method(Answers(sender)));
    // The set goes with the body: a client that leaves ends the method.
    let frames = unfold(Some((receiver, running)), |streaming| async {
        let (mut receiver, mut running) = streaming?;
        if let Some(bytes) = receiver.recv().await {
            return Some((Ok(Frame::data(bytes)), Some((receiver, running))));
        }
        let broken = || Err(Status::new(Code::Internal, "the method ended unexpectedly"));
        let outcome = running.join_next().await.and_then(Result::ok).unwrap_or_else(broken);
        Some((Ok(Frame::trailers(Status::trailers(outcome))), None))
    });
    answer(frames)
}

/// An answer that is only an outcome.
pub fn refused(status: Status) -> Answer {
    // Headers that end the stream themselves: clients don't look for an outcome there otherwise.
    let mut answer = typed(Empty::new().boxed_unsync());
    answer.headers_mut().extend::<HeaderMap>(Status::trailers(Err(status)));
    answer
}

fn answer(frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static) -> Answer {
    typed(StreamBody::new(frames).boxed_unsync())
}

fn typed(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// How connections are secured, and whose are heard.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The handshake: certificates, versions, whether a client must show who it is.
    pub config: Arc<ServerConfig>,
    /// Whether the owner of a certificate, which the handshake found valid, may ask at all.
    pub admits: fn(&CertificateDer<'_>) -> bool,
}

/// Serves until it is dropped, which ends all connections.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, router: Arc<impl Router>) {
    let tls = tls.map(|Tls { config, admits }| {
        let mut config = ServerConfig::clone(&config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        (TlsAcceptor::from(Arc::new(config)), admits)
    });
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.ok();
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (tls, router) = (tls.clone(), router.clone());
                connections.spawn_in(info_span!("etcd API connection", %peer), async move {
                    let _slot = slot;
                    connection(stream, peer, tls, router).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection to etcd's API");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

type Gate = (TlsAcceptor, fn(&CertificateDer<'_>) -> bool);

async fn connection(stream: TcpStream, peer: SocketAddr, gate: Option<Gate>, router: Arc<impl Router>) {
    // Delays answers where it fails, no more.
    let _ = stream.set_nodelay(true);
    let Some((tls, admits)) = gate else {
        return calls(stream, router).await;
    };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            if shown.is_some_and(admits) {
                calls(stream, router).await;
            } else {
                tracing::info!(%peer, "somebody without the right to it asked etcd's API");
                calls(stream, Arc::new(Refusing)).await;
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

/// Answers clients that may ask nothing.
struct Refusing;

impl Router for Refusing {
    fn call(self: Arc<Self>, _: String, _: Messages) -> BoxFuture<'static, Answer> {
        let denied = Status::new(Code::PermissionDenied, "etcdserver: permission denied");
        Box::pin(ready(refused(denied)))
    }
}

async fn calls(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Arc<impl Router>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let path = request.uri().path().to_owned();
            let question = Messages::question(request.into_body(), MOST_MESSAGE_BYTES);
            Ok::<_, Infallible>(router.call(path, question).await)
        }
    });
    let serve = |calls| {
        http2::Builder::new(calls)
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .max_concurrent_streams(MOST_CALLS)
            // gRPC has no use for a date.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(OneAuthority::new(stream)), service)
    };
    if let Err(error) = together(serve).await {
        tracing::debug!(%error, "a connection to etcd's API broke");
    }
}
