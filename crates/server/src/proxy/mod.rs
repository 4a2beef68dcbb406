//! Ways through the API to what runs in the cluster: pods, services, hosts, logs, streams.

mod agent;
mod logs;
mod node;
mod options;
mod pod;
mod resources;
mod service;
mod streams;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode};
use machinery::{Object, Status};
use objects::{Named, load};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::backend::{Relay, UpgradingClient, tls, unreachable_backend};
use crate::http::response::full;
use crate::http::{Asked, Body};
use crate::registry::{Freshness, Registry};

/// The way to pods, services, hosts, logs and streams.
pub(crate) struct Proxy {
    registry: Arc<Registry>,
    relay: Relay,
    /// How the server presents itself to the hosts' agents, and whom it believes.
    agents_tls: Arc<ClientConfig>,
}

impl Proxy {
    pub(crate) fn new(registry: Arc<Registry>, relay: Relay, agents_tls: Arc<ClientConfig>) -> Self {
        Proxy { registry, relay, agents_tls }
    }

    /// Answers `pods/NAME/proxy`, `services/NAME/proxy` and `nodes/NAME/proxy`.
    pub(crate) async fn forward(
        &self,
        asked: &Asked<'_>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        self.admit_proxy(asked).await?;
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
        let client = UpgradingClient::of(&mut request);
        match (asked.target.resource.group, asked.target.resource.plural) {
            ("", "pods") => self.to_pod(asked, request, client).await,
            ("", "services") => self.to_service(asked, request, client).await,
            ("", "nodes") => self.to_node(asked, request, client).await,
            _ => Err(Status::method_not_allowed().about("", "", "")),
        }
    }

    /// The object that a request goes to, and what else its name in the path says.
    async fn addressed<'a>(&self, asked: &Asked<'a>) -> Result<(ProxyName<'a>, Object), Status> {
        let target = asked.target;
        let authority = ProxyName::parse(&target.name)?;
        let named = Named { resource: target.resource, namespace: &target.namespace, name: authority.name };
        let stored = self.registry.get(&named, Freshness::Any).await?;
        Ok((authority, load(&stored)?))
    }

    /// Sends a request on over `stream`, over TLS with `encrypted_for` where there is such a name; `node` is the backend's
    /// host, if that is known.
    async fn send_on(
        &self,
        stream: TcpStream,
        encrypted_for: Option<&str>,
        request: Request<Body>,
        client: Option<UpgradingClient>,
        node: Option<String>,
    ) -> Result<Response<Body>, Status> {
        match encrypted_for {
            Some(host) => {
                let stream = tls::encrypt(stream, host).await.map_err(unreachable_backend)?;
                self.relay.pass_on(stream, request, client, node).await
            }
            None => self.relay.pass_on(stream, request, client, node).await,
        }
    }

    /// The address that a pod or a node gives; 400 if it is none, or no connection may lead there (upstream's
    /// `IsProxyableIP`).
    fn allowed(&self, address: &str) -> Result<IpAddr, Status> {
        let address = address.parse().ok().filter(|address| self.relay.backends().allows(*address));
        address.ok_or_else(|| Status::bad_request("address not allowed"))
    }
}

/// `[SCHEME:]NAME[:PORT]`, as a proxy's name is written.
#[derive(Debug, PartialEq, Eq)]
struct ProxyName<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> ProxyName<'a> {
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
        Ok(ProxyName { https: scheme == "https", name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let parsed = |text| ProxyName::parse(text).map(|a| (a.https, a.name, a.port)).ok();
        assert_eq!(parsed("a"), Some((false, "a", "")));
        assert_eq!(parsed("a:web"), Some((false, "a", "web")));
        assert_eq!(parsed("https:a:443"), Some((true, "a", "443")));
        assert_eq!(parsed("https:a:"), Some((true, "a", "")));
        for wrong in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
