//! The way to what stands behind the API: pods, services, agents, webhooks, other servers. One request over one
//! connection, and for a client that asks for another protocol, its bytes in both directions.

mod headers;
mod request;
pub(crate) mod tls;
mod upgrade;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response};
use machinery::Status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::Body;

pub(crate) use request::{BackendError, CONNECT_WITHIN, connect, rewrite, send};
pub(crate) use upgrade::{UpgradingClient, reason};

/// The way to what stands behind services, and which hosts are believed to be silent.
pub trait Backends: Send + Sync + 'static {
    /// Connects to a ready endpoint of a service's port (its name or number), trying one after the other.
    fn connect<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
    ) -> BoxFuture<'a, Result<TcpStream, io::Error>>;

    /// Whether a host is believed to be silent: it isn't worth a connection.
    fn is_silent(&self, node: &str) -> bool;

    /// Whether a connection may lead to an address that a pod or a node gives: not to what this host keeps to itself,
    /// its loopback network and what only its link knows.
    fn allows(&self, address: IpAddr) -> bool;
}

/// Passes requests on, for as long as the server is open.
#[derive(Clone)]
pub(crate) struct Relay {
    backends: Arc<dyn Backends>,
    closing: watch::Receiver<bool>,
}

impl Relay {
    /// One that ends what it carries when `closing` becomes true.
    pub(crate) fn new(backends: Arc<dyn Backends>, closing: watch::Receiver<bool>) -> Self {
        Relay { backends, closing }
    }

    pub(crate) fn backends(&self) -> &dyn Backends {
        &*self.backends
    }

    /// Sends a request on, and answers what comes: of the same protocol, or, for a client that asks for it, of another.
    /// `node` is the backend's host, if that is known.
    pub(crate) async fn pass_on<S>(
        &self,
        stream: S,
        mut request: Request<Body>,
        client: Option<UpgradingClient>,
        node: Option<String>,
    ) -> Result<Response<Body>, Status>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let answer = match client {
            Some(client) => {
                client.ask(request.headers_mut());
                self.send_upgrade(stream, request, client, node).await
            }
            None => send(stream, request).await,
        };
        answer.map_err(unreachable_backend)
    }
}

/// 503: what stands behind can't be reached.
pub(crate) fn unreachable_backend(why: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("error trying to reach service: {why}"))
}
