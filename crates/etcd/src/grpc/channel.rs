//! The client's side: a connection, made when it is needed and made anew when it broke.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::unfold;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Code, Frames, Messages, Status};

const CONNECT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Questions of a stream that wait for the network.
const WAITING_QUESTIONS: usize = 16;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A way to one of several servers that know the same.
#[derive(Debug)]
pub struct Channel {
    endpoints: Vec<Uri>,
    tls: Option<Arc<ClientConfig>>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<SendRequest<Body>>,
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
    pub fn new(endpoints: Vec<Uri>, tls: Option<Arc<ClientConfig>>) -> Self {
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
            .scheme(endpoint.scheme_str().unwrap_or("http"))
            .authority(endpoint.authority().map_or("localhost", |authority| authority.as_str()))
            .path_and_query(path)
            .build()
            .map_err(|problem| Status::new(Code::Internal, problem.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let answer = connection.send_request(request).await.map_err(Status::unavailable)?;
        if let Some(outcome) = Status::from_trailers(answer.headers()) {
            outcome?;
        }
        if !answer.status().is_success() {
            return Err(Status::unavailable(format_args!("{endpoint} answered HTTP {}", answer.status())));
        }
        Ok(Messages::answer(answer.into_body()))
    }

    /// A connection that works as far as anyone knows.
    async fn connection(&self) -> Result<(SendRequest<Body>, &Uri), Status> {
        let mut current = self.current.lock().await;
        let mut problem = Status::unavailable("no endpoint was given");
        for _ in 0..=self.endpoints.len() {
            let Some(endpoint) = self.endpoints.get(current.next) else { break };
            if let Some(connection) = &current.connection
                && !connection.is_closed()
            {
                return Ok((connection.clone(), endpoint));
            }
            match timeout(CONNECT, self.connect(endpoint)).await {
                Ok(Ok(connection)) => {
                    current.connection = Some(connection);
                    continue;
                }
                Ok(Err(error)) => problem = Status::unavailable(format_args!("{endpoint}: {error}")),
                Err(_) => problem = Status::unavailable(format_args!("{endpoint} does not answer")),
            }
            current.connection = None;
            current.next = (current.next + 1) % self.endpoints.len();
        }
        Err(problem)
    }

    /// Takes another endpoint from the next call on: this one, though connected, is of no use.
    pub async fn move_on(&self) {
        let mut current = self.current.lock().await;
        current.connection = None;
        current.next = (current.next + 1) % self.endpoints.len().max(1);
    }

    async fn connect(&self, endpoint: &Uri) -> std::io::Result<SendRequest<Body>> {
        let host = endpoint.host().unwrap_or("localhost").trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, endpoint.port_u16().unwrap_or(2379))).await?;
        stream.set_nodelay(true)?;
        if endpoint.scheme_str() != Some("https") {
            return shake_hands(stream).await;
        }
        let missing = || std::io::Error::other("it wants TLS, for which there are no certificates");
        let tls = TlsConnector::from(self.tls.clone().ok_or_else(missing)?);
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        shake_hands(tls.connect(name, stream).await?).await
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<SendRequest<Body>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd broke");
        }
    });
    Ok(sender)
}
