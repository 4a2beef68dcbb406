//! The client's side: a connection, made when it is needed and made anew when it broke.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::unfold;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::info_span;

use super::{Code, Frames, Messages, Status};

/// How long one member may take for the TCP and TLS handshakes before the next one is tried: a dead machine answers nothing at
/// all, and there are two more.
const CONNECT: Duration = Duration::from_secs(1);
/// Not more often: an etcd hangs up on clients that ping within its `--grpc-keepalive-min-time`, 5 s by default.
const PING: Duration = Duration::from_secs(10);
/// How long a server may take to say the first word, or that it doesn't accept the client's certificate.
const FIRST_WORD: Duration = Duration::from_millis(100);
/// How long the answer to a ping may take before the connection counts as dead.
const PONG: Duration = Duration::from_secs(3);
/// A member of an etcd that knows no leader refuses requests with this at once, instead of letting them wait.
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
/// Questions of a stream that wait for the network.
const WAITING_QUESTIONS: usize = 16;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server, and where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Like `https://host:2379`. The server's certificate must be for this host.
    pub uri: Uri,
    /// Where it is reached, if not by its name.
    pub address: Option<SocketAddr>,
}

impl From<Uri> for Endpoint {
    fn from(uri: Uri) -> Self {
        Endpoint { uri, address: None }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or("http");
        write!(f, "{scheme}://{}", self.uri.authority().map_or("", |authority| authority.as_str()))
    }
}

/// A way to one of several servers that know the same.
#[derive(Debug)]
pub struct Channel {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfig>>,
    current: Mutex<Current>,
}

/// A connection, and the task that keeps it going.
type Connection = (SendRequest<Body>, AbortHandle);

#[derive(Debug, Default)]
struct Current {
    connection: Option<Connection>,
    /// How many connections there were.
    count: u64,
    /// Which endpoint is tried next.
    next: usize,
}

/// Where a streaming call's questions go in. Dropping it ends the question.
#[derive(Debug, Clone)]
pub struct Questions(mpsc::Sender<Bytes>);

impl Questions {
    /// Asks one more.
    pub async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let gone = |_| Status::unavailable("the call has ended");
        self.0.send(Frames::encode(message)).await.map_err(gone)
    }
}

impl Channel {
    /// To servers at addresses like `https://host:2379`; `tls` is for those with `https`.
    pub fn new(endpoints: Vec<Endpoint>, tls: Option<Arc<ClientConfig>>) -> Self {
        let tls = tls.map(|tls| {
            let mut tls = ClientConfig::clone(&tls);
            tls.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(tls)
        });
        Channel { endpoints, tls, current: Mutex::default() }
    }

    /// A call of one message that is answered with one.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        question: &impl Message,
    ) -> Result<A, Status> {
        let body = Full::new(Frames::encode(question)).boxed_unsync();
        let mut answer = self.call(path, body).await?;
        let missing = || Status::new(Code::Internal, "the answer brought no message");
        let message = answer.next().await?.ok_or_else(missing)?;
        // The outcome stands after it.
        answer.next::<A>().await?;
        Ok(message)
    }

    /// A call of one message that is answered with a stream.
    pub async fn server_stream(&self, path: &str, question: &impl Message) -> Result<Messages, Status> {
        self.call(path, Full::new(Frames::encode(question)).boxed_unsync()).await
    }

    /// A call with streams both ways, whose first question is `first` (a server may answer nothing, headers
    /// included, before it has one).
    pub async fn stream(&self, path: &str, first: &impl Message) -> Result<(Questions, Messages), Status> {
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_QUESTIONS);
        let questions = Questions(sender);
        questions.send(first).await?;
        let frames = unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|bytes| (Ok(Frame::data(bytes)), receiver))
        });
        let answer = self.call(path, StreamBody::new(frames).boxed_unsync()).await?;
        Ok((questions, answer))
    }

    async fn call(&self, path: &str, body: Body) -> Result<Messages, Status> {
        let (mut connection, endpoint) = self.connection().await?;
        let uri = Uri::builder()
            .scheme(endpoint.uri.scheme_str().unwrap_or("http"))
            .authority(endpoint.uri.authority().map_or("localhost", |authority| authority.as_str()))
            .path_and_query(path)
            .build()
            .map_err(|problem| Status::new(Code::Internal, problem.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(HAS_LEADER, HeaderValue::from_static("true"));
        let answer = connection.send_request(request).await.map_err(|problem| failed(endpoint, &problem))?;
        if let Some(outcome) = Status::from_trailers(answer.headers()) {
            outcome?;
        }
        if !answer.status().is_success() {
            let problem = format_args!("{endpoint} answers HTTP {}: it is no etcd", answer.status());
            return Err(Status::unavailable(problem));
        }
        Ok(Messages::answer(answer.into_body()))
    }

    /// Connects, if there is no connection yet. The answer is the connection's number.
    pub async fn connected(&self) -> Result<u64, Status> {
        self.connection().await?;
        Ok(self.current.lock().await.count)
    }

    /// A connection that works as far as anyone knows.
    async fn connection(&self) -> Result<(SendRequest<Body>, &Endpoint), Status> {
        let mut current = self.current.lock().await;
        let mut problem = Status::unavailable("no endpoint was given");
        for _ in 0..=self.endpoints.len() {
            let Some(endpoint) = self.endpoints.get(current.next) else { break };
            if let Some((connection, _)) = &current.connection
                && !connection.is_closed()
            {
                return Ok((connection.clone(), endpoint));
            }
            match timeout(CONNECT, self.connect(endpoint)).await {
                Ok(Ok(connection)) => {
                    current.connection = Some(connection);
                    current.count += 1;
                    continue;
                }
                // That one endpoint refuses this client says more than that another is down.
                Ok(Err(error)) if problem.code != Code::Unauthenticated => problem = failed(endpoint, &error),
                Err(_) if problem.code != Code::Unauthenticated => {
                    problem = Status::unavailable(format_args!("{endpoint} does not answer"));
                }
                Ok(Err(_)) | Err(_) => {}
            }
            current.connection = None;
            current.next = (current.next + 1) % self.endpoints.len();
        }
        Err(problem)
    }

    /// Takes another endpoint from the next call on: this one, though connected, is of no use. What was asked of
    /// it and isn't answered fails.
    pub async fn move_on(&self) {
        self.current.lock().await.move_on(self.endpoints.len());
    }

    /// As [`move_on`](Self::move_on), if the connection is still the one of this number.
    pub async fn leave(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.count == number {
            current.move_on(self.endpoints.len());
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<Connection> {
        let host = endpoint.uri.host().unwrap_or("localhost").trim_matches(['[', ']']);
        let stream = match endpoint.address {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((host, endpoint.uri.port_u16().unwrap_or(2379))).await?,
        };
        stream.set_nodelay(true)?;
        if endpoint.uri.scheme_str() != Some("https") {
            return shake_hands(stream).await;
        }
        let missing = || std::io::Error::other("it wants TLS, for which there are no certificates");
        let tls = TlsConnector::from(self.tls.clone().ok_or_else(missing)?);
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let mut stream = tls.connect(name, stream).await?;
        // With TLS 1.3 a server refuses a certificate after the handshake. What is written to it by then makes the
        // system forget its reason; most servers of HTTP/2 speak first, so they are listened to first.
        if let Ok(word) = timeout(FIRST_WORD, stream.fill_buf()).await {
            word?;
        }
        shake_hands(stream).await
    }
}

impl Current {
    fn move_on(&mut self, endpoints: usize) {
        if let Some((_, task)) = self.connection.take() {
            task.abort();
        }
        self.next = (self.next + 1) % endpoints.max(1);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some((_, task)) = self.current.get_mut().connection.take() {
            task.abort();
        }
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<Connection> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    let task = tasks::spawn(info_span!("connection to etcd"), async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd broke");
        }
    });
    Ok((sender, task.abort_handle()))
}

/// What an endpoint's failure means: [`Code::Unauthenticated`] where one side doesn't accept the other's
/// certificate, which waiting does not mend.
fn failed(endpoint: &Endpoint, error: &(dyn Error + 'static)) -> Status {
    let mut innermost = error;
    loop {
        if let Some(rustls::Error::InvalidCertificate(why)) = innermost.downcast_ref() {
            let message = format!("{endpoint} has a certificate that isn't accepted here ({why:?})");
            return Status::new(Code::Unauthenticated, message);
        }
        let io = innermost.downcast_ref::<std::io::Error>();
        // An I/O error's source skips what it wraps.
        let wrapped = io.and_then(|io| io.get_ref()).map(|inner| inner as &(dyn Error + 'static));
        match wrapped.or_else(|| innermost.source()) {
            Some(source) => innermost = source,
            None => break,
        }
    }
    // With TLS 1.3 a server refuses after the handshake; HTTP/2 keeps but the words of what broke it.
    let text = innermost.to_string();
    match text.split_once("received fatal alert: ") {
        Some((_, why)) => {
            let message = format!("{endpoint} doesn't accept this client's certificate ({why})");
            Status::new(Code::Unauthenticated, message)
        }
        None => Status::unavailable(format_args!("{endpoint}: {text}")),
    }
}
