//! A client's connection, and the calls over it.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::unfold;
use http::header::{CONTENT_TYPE, TE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Code, Frames, Messages, Status};

/// Questions of a stream that wait for the network.
const WAITING_QUESTIONS: usize = 16;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a connection's calls name as their server, and what they send along.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// `host:port`; for a Unix socket, by custom, `localhost`.
    pub authority: Authority,
    /// Headers of every call.
    pub headers: HeaderMap,
}

/// When a server from which nothing comes is asked whether it is there. grpc-go's servers hang up on clients that ask more often
/// than every five minutes, unless they were told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Pings {
    /// How long nothing has come, while calls are under way.
    pub after: Duration,
    /// How long the answer may take before the connection counts as dead.
    pub patience: Duration,
}

/// A connection to a server. Its clones are the same connection, over which calls run side by side.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: SendRequest<Body>,
    origin: Origin,
    /// Of an answer's message, in bytes.
    limit: usize,
}

/// Keeps a connection going for as long as it is awaited; over once the connection is. An error says what broke it.
pub struct Driver(BoxFuture<'static, Result<(), hyper::Error>>);

impl Future for Driver {
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The server's word.
    #[error(transparent)]
    Refused(#[from] Status),
    /// The connection's end, or its refusal of the call.
    #[error("{}", innermost(.0))]
    Lost(#[source] hyper::Error),
    /// The server speaks HTTP, and no gRPC.
    #[error("the server answers HTTP {0}: it speaks no gRPC")]
    Http(StatusCode),
}

/// hyper's own words say less than what it wraps.
fn innermost(error: &hyper::Error) -> &dyn Error {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Where a streaming call's questions go in. Dropping it ends the question.
#[derive(Debug, Clone)]
pub struct Questions(mpsc::Sender<Bytes>);

impl Questions {
    /// Asks one more.
    ///
    /// # Errors
    /// If the call has ended.
    pub async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let gone = |_| Status::unavailable("the call has ended");
        self.0.send(Frames::encode(message)).await.map_err(gone)
    }
}

impl Connection {
    /// Greets a server over `stream`. No message of an answer may be longer than `limit` bytes. Nothing moves unless the driver
    /// is awaited.
    ///
    /// # Errors
    /// If the stream breaks meanwhile.
    pub async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        origin: Origin,
        pings: Option<Pings>,
        limit: usize,
    ) -> io::Result<(Self, Driver)> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_while_idle(false);
        if let Some(Pings { after, patience }) = pings {
            builder.keep_alive_interval(after).keep_alive_timeout(patience);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok((Connection { sender, origin, limit }, Driver(Box::pin(connection))))
    }

    /// Whether it broke, as far as anyone knows.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// A call of one message that is answered with one.
    ///
    /// # Errors
    /// What the server refused, or why it could not be asked.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        question: &impl Message,
    ) -> Result<A, Broken> {
        let mut answer = self.server_stream(path, question).await?;
        let missing = || Status::new(Code::Internal, "the answer brought no message");
        let message = answer.next().await?.ok_or_else(missing)?;
        // The outcome stands after it.
        answer.next::<A>().await?;
        Ok(message)
    }

    /// A call of one message that is answered with a stream.
    ///
    /// # Errors
    /// What the server refused, or why it could not be asked.
    pub async fn server_stream(&self, path: &str, question: &impl Message) -> Result<Messages, Broken> {
        self.call(path, Full::new(Frames::encode(question)).boxed_unsync()).await
    }

    /// A call with streams both ways, whose first question is `first` (a server may answer nothing, headers
    /// included, before it has one).
    ///
    /// # Errors
    /// What the server refused, or why it could not be asked.
    pub async fn stream(&self, path: &str, first: &impl Message) -> Result<(Questions, Messages), Broken> {
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_QUESTIONS);
        let questions = Questions(sender);
        questions.send(first).await?;
        let frames = unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|bytes| (Ok(Frame::data(bytes)), receiver))
        });
        let answer = self.call(path, StreamBody::new(frames).boxed_unsync()).await?;
        Ok((questions, answer))
    }

    async fn call(&self, path: &str, body: Body) -> Result<Messages, Broken> {
        let Origin { scheme, authority, headers } = self.origin.clone();
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        let uri = uri.map_err(|problem| Status::new(Code::Internal, problem.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let answer = self.sender.clone().send_request(request).await.map_err(Broken::Lost)?;
        if let Some(outcome) = Status::from_trailers(answer.headers()) {
            outcome?;
        }
        if !answer.status().is_success() {
            return Err(Broken::Http(answer.status()));
        }
        Ok(Messages::answer(answer.into_body(), self.limit))
    }
}
