//! The client's side: a connection, made when it is needed and made anew when it broke.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grpc::{Broken, Code, Connection, Messages, Origin, Pings, Questions, Status};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::info_span;

/// How long one member may take for the TCP and TLS handshakes before the next one is tried: a dead machine answers nothing at
/// all, and there are two more.
const CONNECT: Duration = Duration::from_secs(1);
/// Not more often: an etcd hangs up on clients that ping within its `--grpc-keepalive-min-time`, 5 s by default.
const PINGS: Pings = Pings { after: Duration::from_secs(10), patience: Duration::from_secs(3) };
/// A list of keys may be as long as gRPC lets it: an etcd's own bounds hold it.
const LONGEST_ANSWER: usize = u32::MAX as usize;
/// How long a server may take to say the first word, or that it doesn't accept the client's certificate.
const FIRST_WORD: Duration = Duration::from_millis(100);
/// A member of an etcd that knows no leader refuses requests with this at once, instead of letting them wait.
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
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

#[derive(Debug, Default)]
struct Current {
    /// With the task that keeps it going.
    connection: Option<(Connection, AbortHandle)>,
    /// How many connections there were.
    count: u64,
    /// Which endpoint is tried next.
    next: usize,
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
        let (connection, endpoint) = self.connection().await?;
        connection.unary(path, question).await.map_err(|broken| meant(endpoint, broken))
    }

    /// A call of one message that is answered with a stream.
    pub async fn server_stream(&self, path: &str, question: &impl Message) -> Result<Messages, Status> {
        let (connection, endpoint) = self.connection().await?;
        connection.server_stream(path, question).await.map_err(|broken| meant(endpoint, broken))
    }

    /// A call with streams both ways, whose first question is `first`.
    pub async fn stream(&self, path: &str, first: &impl Message) -> Result<(Questions, Messages), Status> {
        let (connection, endpoint) = self.connection().await?;
        connection.stream(path, first).await.map_err(|broken| meant(endpoint, broken))
    }

    /// Connects, if there is no connection yet. The answer is the connection's number.
    pub async fn connected(&self) -> Result<u64, Status> {
        self.connection().await?;
        Ok(self.current.lock().await.count)
    }

    /// A connection that works as far as anyone knows.
    async fn connection(&self) -> Result<(Connection, &Endpoint), Status> {
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

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<(Connection, AbortHandle)> {
        let host = endpoint.uri.host().unwrap_or("localhost").trim_matches(['[', ']']);
        let stream = match endpoint.address {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((host, endpoint.uri.port_u16().unwrap_or(2379))).await?,
        };
        stream.set_nodelay(true)?;
        if endpoint.uri.scheme_str() != Some("https") {
            return shake_hands(stream, endpoint).await;
        }
        let missing = || io::Error::other("it wants TLS, for which there are no certificates");
        let tls = TlsConnector::from(self.tls.clone().ok_or_else(missing)?);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut stream = tls.connect(name, stream).await?;
        // With TLS 1.3 a server refuses a certificate after the handshake. What is written to it by then makes the
        // system forget its reason; most servers of HTTP/2 speak first, so they are listened to first.
        if let Ok(word) = timeout(FIRST_WORD, stream.fill_buf()).await {
            word?;
        }
        shake_hands(stream, endpoint).await
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
    endpoint: &Endpoint,
) -> io::Result<(Connection, AbortHandle)> {
    let origin = Origin {
        scheme: endpoint.uri.scheme().cloned().unwrap_or(Scheme::HTTP),
        authority: endpoint.uri.authority().cloned().unwrap_or(Authority::from_static("localhost")),
        headers: HeaderMap::from_iter([(HAS_LEADER, HeaderValue::from_static("true"))]),
    };
    let (connection, driver) = Connection::open(stream, origin, Some(PINGS), LONGEST_ANSWER).await?;
    let task = tasks::spawn(info_span!("connection to etcd"), async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to etcd broke");
        }
    });
    Ok((connection, task.abort_handle()))
}

/// What it means that a call has no answer.
fn meant(endpoint: &Endpoint, broken: Broken) -> Status {
    match broken {
        Broken::Refused(status) => status,
        Broken::Lost(error) => failed(endpoint, &error),
        Broken::Http(status) => {
            Status::unavailable(format_args!("{endpoint} answers HTTP {status}: it is no etcd"))
        }
    }
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
        let io = innermost.downcast_ref::<io::Error>();
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
