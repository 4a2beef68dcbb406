//! Requests to the servers of aggregated APIs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use access::UserInfo;
use http::{HeaderName, HeaderValue, Request, Response};
use machinery::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pki::Trust;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Aggregation, Remote};
use crate::backend::{UpgradingClient, rewrite, unreachable_backend};
use crate::http::Body;

/// How long a connection with its handshake may take: as long as the probe gives a server for its whole answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What of an extra's key stands in a header's name as it is (upstream's `headerKeyEscape`).
const IN_HEADERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl Aggregation {
    /// Forwards a request to the server of an aggregated API.
    pub(crate) async fn forward(
        &self,
        remote: &Remote,
        who: &UserInfo,
        mut request: Request<Body>,
        time: Option<Duration>,
    ) -> Result<Response<Body>, Status> {
        if !remote.available {
            return Err(Status::unavailable(format!("the APIService {:?} is not available", remote.name)));
        }
        let client = UpgradingClient::of(&mut request);
        let answer = self.ask(remote, who, request, client);
        match time {
            None => answer.await,
            Some(time) => timeout(time, answer).await.unwrap_or_else(|_| {
                Err(Status::new(504, "Timeout", "Timeout: the server did not begin to answer in time"))
            }),
        }
    }

    /// Asks a server as somebody, maybe for a client that asks for another protocol.
    pub(super) async fn ask(
        &self,
        remote: &Remote,
        who: &UserInfo,
        request: Request<Body>,
        client: Option<UpgradingClient>,
    ) -> Result<Response<Body>, Status> {
        let stream = timeout(CONNECT_WITHIN, self.connect(remote)).await;
        let stream = stream.map_err(|_| unreachable_backend("no connection in time"))?;
        let stream = stream.map_err(unreachable_backend)?;
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        rewrite(&mut parts, &path, &format!("{}:{}", remote.host(), remote.port))
            .map_err(unreachable_backend)?;
        introduce(&mut parts.headers, who);
        self.relay.pass_on(stream, Request::from_parts(parts, body), client, None).await
    }

    async fn connect(
        &self,
        remote: &Remote,
    ) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let config = self.client_config(remote).map_err(io::Error::other)?;
        let stream = self.relay.backends().connect(&remote.namespace, &remote.service, &remote.port).await?;
        let name = ServerName::try_from(remote.host()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }

    fn client_config(&self, remote: &Remote) -> Result<Arc<ClientConfig>, pki::Error> {
        const HTTP: &[&[u8]] = &[b"http/1.1"];
        let own = self.front_proxy.as_ref();
        match (&remote.authority, own) {
            _ if remote.insecure => match own {
                Some(own) => own.identity.client_config_for_anyone(),
                None => pki::client_config_for_anyone(),
            },
            (Some(pem), Some(own)) => {
                own.identity.client_config_for_any_age(&Trust::from_pem(pem.as_str())?, HTTP)
            }
            (Some(pem), None) => Trust::from_pem(pem.as_str())?.client_config(HTTP),
            (None, Some(own)) => own.identity.client_config_for_any_age(&own.trust, HTTP),
            (None, None) => Trust::from_pem("")?.client_config(HTTP),
        }
    }
}

/// Says in whose name a request comes, and nothing else that the client said about that.
fn introduce(headers: &mut http::HeaderMap, who: &UserInfo) {
    let said: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in said {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &who.user);
    if !who.uid.is_empty() {
        add("x-remote-uid", &who.uid);
    }
    for group in &who.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &who.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(&key.to_lowercase(), IN_HEADERS));
        for value in values {
            add(&name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn nobody_says_for_themselves_who_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let mut who = UserInfo::new("jane", ["a", "b"]);
        who.extra.insert("example.com/Scope".into(), vec!["x".into()]);
        introduce(&mut headers, &who);
        let mut said: Vec<_> = headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().unwrap())).collect();
        said.sort();
        assert_eq!(
            said,
            [
                "x-remote-extra-example.com%2fscope=x",
                "x-remote-group=a",
                "x-remote-group=b",
                "x-remote-user=jane"
            ]
        );
    }
}
