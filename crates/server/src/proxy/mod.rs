//! Ways through the API to what runs in the cluster: pods, services, hosts, logs, streams.

mod agent;
mod connect;
mod headers;
mod logs;
mod node;
mod options;
mod pod;
mod service;
mod streams;
mod tls;
mod upgrade;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use api::Status;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::http::Body;
use crate::http::response::full;
use crate::http::serve::Asked;
use crate::server::Server;

use upgrade::send_upgrade;

pub(crate) use connect::{rewrite, send};
pub(crate) use logs::logs;
pub(crate) use streams::stream;
pub(crate) use upgrade::Client;

/// The way to what stands behind services, and who is believed to be silent.
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

    /// Whether a connection may lead to an address that a pod or a node tells: not to what this host keeps to itself,
    /// its loopback network and what only its link knows.
    fn allows(&self, address: IpAddr) -> bool;
}

/// Answers `pods/NAME/proxy`, `services/NAME/proxy` and `nodes/NAME/proxy`.
pub(crate) async fn forward(
    server: &Arc<Server>,
    asked: &Asked<'_>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    options::admit_proxy(server, asked).await?;
    // Relative links need a slash at the end.
    if asked.target.rest.is_empty() && matches!(request.method().as_str(), "GET" | "HEAD") {
        let mut location = format!("{}/", request.uri().path());
        if let Some(query) = request.uri().query() {
            location = format!("{location}?{query}");
        }
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(http::header::LOCATION, location);
        }
        return Ok(response);
    }
    let client = Client::of(&mut request);
    match (asked.target.resource.group, asked.target.resource.plural) {
        ("", "pods") => pod::forward(server, asked, request, client).await,
        ("", "services") => service::forward(server, asked, request, client).await,
        ("", "nodes") => node::forward(server, asked, request, client).await,
        _ => Err(Status::method_not_allowed().about("", "", "")),
    }
}

/// Sends a request on, and answers what comes: of the same protocol, or, for a client that asks for it, of another.
pub(crate) async fn pass_on<S>(
    server: &Arc<Server>,
    stream: S,
    mut request: Request<Body>,
    client: Option<Client>,
    node: Option<String>,
) -> Result<Response<Body>, Status>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = match client {
        Some(client) => {
            client.ask(request.headers_mut());
            send_upgrade(server, stream, request, client, node).await
        }
        None => send(stream, request).await,
    };
    answer.map_err(unreachable_backend)
}

/// `[SCHEME:]NAME[:PORT]`, as a proxy's name is written.
#[derive(Debug, PartialEq, Eq)]
struct Authority<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        if !matches!(scheme, "" | "http" | "https") || name.is_empty() {
            return Err(Status::bad_request(format!(
                "invalid proxy name {text:?}: write [https:]NAME[:PORT]"
            )));
        }
        Ok(Authority { https: scheme == "https", name, port })
    }
}

/// The address that a pod or a node tells; 400 if it is none, or no connection may lead there (upstream's
/// `IsProxyableIP`).
fn allowed(server: &Arc<Server>, address: &str) -> Result<IpAddr, Status> {
    let address = address.parse().ok().filter(|address| server.backends().allows(*address));
    address.ok_or_else(|| Status::bad_request("address not allowed"))
}

/// 503: what stands behind can't be reached.
pub(crate) fn unreachable_backend(why: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("error trying to reach service: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let parsed = |text| Authority::parse(text).map(|a| (a.https, a.name, a.port)).ok();
        assert_eq!(parsed("a"), Some((false, "a", "")));
        assert_eq!(parsed("a:web"), Some((false, "a", "web")));
        assert_eq!(parsed("https:a:443"), Some((true, "a", "443")));
        assert_eq!(parsed("https:a:"), Some((true, "a", "")));
        for wrong in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
