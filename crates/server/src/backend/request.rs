//! One request over one connection to a backend.

use std::io;
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::info_span;

use super::headers::{strip_hop_by_hop, to_backend};
use crate::http::Body;

/// How long a connection to a pod or an agent may take: they are in the cluster's own network, where a
/// host that lives answers within milliseconds.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Why a backend gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The connection broke before the head of an answer.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// The path can't be sent.
    #[error("the path can't be sent: {0}")]
    Path(http::uri::InvalidUri),
}

/// Connects to an address.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, io::Error> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes a client's request one for the backend: the path behind `proxy`, and headers for `host`.
pub(crate) fn rewrite(parts: &mut http::request::Parts, rest: &str, host: &str) -> Result<(), BackendError> {
    let path = if rest.is_empty() { "/" } else { rest };
    let uri = match parts.uri.query() {
        Some(query) => format!("{path}?{query}").parse::<Uri>(),
        None => path.parse(),
    };
    let uri = uri.map_err(BackendError::Path)?;
    let original = std::mem::replace(&mut parts.uri, uri);
    parts.version = http::Version::HTTP_11;
    // Among them is the client's connection, which counts for as long as somebody holds it.
    parts.extensions.clear();
    to_backend(&mut parts.headers, &original, host);
    Ok(())
}

/// Sends a request over a connection of its own and waits for the head of the answer; the body streams.
pub(crate) async fn send<S>(stream: S, request: Request<Body>) -> Result<Response<Body>, BackendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(BackendError::Broken)?;
    // The connection lives for as long as the answer's body is read.
    tasks::spawn(info_span!("proxied connection"), async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection broke");
        }
    });
    let mut response = sender.send_request(request).await.map_err(BackendError::Broken)?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.boxed_unsync()))
}
