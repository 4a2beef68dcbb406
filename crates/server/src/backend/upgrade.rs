//! A request that asks for another protocol: once the backend has agreed, bytes go both ways until one side ends.

use std::future::pending;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{interval, timeout};
use tracing::info_span;

use super::headers::strip_hop_by_hop;
use super::request::BackendError;
use super::{Backends, Relay};
use crate::http::response::full;
use crate::http::websocket::has;
use crate::http::{Body, Connection};

/// How long a client may go on sending to a backend that has ended: it reads the end within that time, unless it is gone.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often the backend's host is checked for silence. Silence twice in a row ends the connection: a host that
/// paused for a moment goes on.
const LOOK: Duration = Duration::from_secs(1);
/// How many bytes are copied at a time.
const PIECE: usize = 8 << 10;

/// A client that asks for another protocol.
pub(crate) struct UpgradingClient {
    upgrade: OnUpgrade,
    protocol: HeaderValue,
    connection: Option<Connection>,
}

impl UpgradingClient {
    /// The client of a request, if that is what it asks for.
    pub(crate) fn of(request: &mut Request<Body>) -> Option<Self> {
        let protocol = request
            .headers()
            .get(UPGRADE)
            .filter(|_| has(request.headers(), &CONNECTION, "upgrade"))?
            .clone();
        let connection = request.extensions_mut().remove::<Connection>();
        Some(UpgradingClient { upgrade: hyper::upgrade::on(request), protocol, connection })
    }

    /// Writes into a request to a backend what the client asks for.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

impl Relay {
    /// Sends a request over a connection of its own. An answer of 101 leaves both sides to each other; any other is
    /// answered as it is. `node` is the backend's host, if that is known.
    pub(crate) async fn send_upgrade<S>(
        &self,
        stream: S,
        request: Request<Body>,
        client: UpgradingClient,
        node: Option<String>,
    ) -> Result<Response<Body>, BackendError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(BackendError::Broken)?;
        tasks::spawn(info_span!("proxied connection"), async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a proxied connection broke");
            }
        });
        let mut response = sender.send_request(request).await.map_err(BackendError::Broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            strip_hop_by_hop(response.headers_mut());
            return Ok(response.map(|body| body.boxed_unsync()));
        }
        let backend = hyper::upgrade::on(&mut response);
        let (relay, UpgradingClient { upgrade, connection, .. }) = (self.clone(), client);
        tasks::spawn(info_span!("proxied stream"), async move {
            let (client, backend) = match tokio::try_join!(upgrade, backend) {
                Ok(both) => both,
                Err(error) => return tracing::debug!(%error, "one side went before the protocol changed"),
            };
            let mut closing = relay.closing.clone();
            tokio::select! {
                () = exchange(TokioIo::new(client), TokioIo::new(backend)) => {}
                _ = closing.wait_for(|closing| *closing) => {}
                () = silence(relay.backends(), node) => {}
                () = Connection::over(connection) => {}
            }
        });
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, full("")))
    }
}

/// Waits until a host has been silent for a while.
async fn silence(backends: &dyn Backends, node: Option<String>) {
    let Some(node) = node else { return pending().await };
    let (mut look, mut silent) = (interval(LOOK), 0);
    while silent < 2 {
        look.tick().await;
        silent = if backends.is_silent(&node) { silent + 1 } else { 0 };
    }
}

/// Copies both ways. When the backend has ended, the client may go on for a moment; when the client has, the
/// backend may end what it does.
async fn exchange(client: impl AsyncRead + AsyncWrite, backend: impl AsyncRead + AsyncWrite) {
    let (from_client, mut to_client) = tokio::io::split(client);
    let (from_backend, mut to_backend) = tokio::io::split(backend);
    let mut inward = std::pin::pin!(copy(from_client, &mut to_backend));
    let mut outward = std::pin::pin!(copy(from_backend, &mut to_client));
    let mut inward_over = false;
    loop {
        tokio::select! {
            copied = &mut inward, if !inward_over => {
                inward_over = true;
                match copied {
                    // A client whose connection broke is gone: nobody reads what would come.
                    Copied::SourceBroke => return,
                    // A backend that takes no more may have said something before that the client still has to read.
                    Copied::All | Copied::TargetBroke => {}
                }
            }
            copied = &mut outward => {
                if copied == Copied::All && !inward_over {
                    let _ = timeout(FAREWELL, inward).await;
                }
                return;
            }
        }
    }
}

/// How copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// The source ended, and the target was told so.
    All,
    SourceBroke,
    TargetBroke,
}

/// Copies until the end, and passes that on.
async fn copy(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> Copied {
    let mut held = vec![0; PIECE];
    loop {
        let passed_on = match from.read(&mut held).await {
            Err(_) => return Copied::SourceBroke,
            Ok(0) if to.shutdown().await.is_ok() => return Copied::All,
            Ok(0) => return Copied::TargetBroke,
            Ok(read) => to.write_all(&held[..read]).await.is_ok() && to.flush().await.is_ok(),
        };
        if !passed_on {
            return Copied::TargetBroke;
        }
    }
}

/// The first bytes of an answer's body as text: what a backend that refuses says.
pub(crate) async fn reason(response: Response<Body>) -> String {
    const LONGEST: usize = 4 << 10;
    let mut text = Vec::new();
    let read = async {
        let mut body = response.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                text.extend_from_slice(&data);
            }
            if text.len() >= LONGEST {
                break;
            }
        }
    };
    let _ = timeout(FAREWELL, read).await;
    text.truncate(LONGEST);
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::{duplex, join};

    use super::*;

    #[tokio::test]
    async fn what_a_backend_said_arrives_though_it_takes_no_more() {
        let said = vec![7_u8; 10 * PIECE];
        let (mut caller, client) = duplex(64);
        let takes_no_more = duplex(64).0;
        caller.write_all(b"unheard").await.unwrap();
        let reading = async {
            let mut heard = Vec::new();
            caller.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let backend = join(Cursor::new(said.clone()), takes_no_more);
        let (heard, ()) = tokio::join!(reading, exchange(client, backend));
        assert_eq!(heard, said);
    }
}
