//! `services/[https:]NAME[:PORT]/proxy`: to whichever pod behind a service answers.
//!
//! A question that may be asked twice (GET or HEAD without a body) is asked again over another connection
//! when a backend fails, or is slow to begin its answer; the first answer counts. So a caller sees no error
//! while a backend's host dies, and a slow backend is still waited for.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Method, Request, Response};
use hyper::body::Body as _;
use machinery::{Object, Status};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Proxy;
use crate::backend::{BackendError, Backends, UpgradingClient, rewrite, send, tls, unreachable_backend};
use crate::http::response::full;
use crate::http::{Asked, Body};

/// How long the head of an answer may take before another backend is asked as well: longer than most answers take, and
/// so short that the second one still comes while a person waits.
const PATIENCE: Duration = Duration::from_millis(300);
/// How many backends are asked at most: two may be dead, and a request that is slow everywhere costs no more than three.
const ATTEMPTS: usize = 3;
/// How long the head of an answer may take at all: as long as any request that isn't a watch.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Proxy {
    pub(super) async fn to_service(
        &self,
        asked: &Asked<'_>,
        request: Request<Body>,
        client: Option<UpgradingClient>,
    ) -> Result<Response<Body>, Status> {
        let target = asked.target;
        let (authority, service) = self.addressed(asked).await?;
        let port = port_of(&service, authority.port)?;
        let (mut parts, body) = request.into_parts();
        let host = format!("{}.{}.svc:{port}", authority.name, target.namespace);
        rewrite(&mut parts, &target.rest, &host).map_err(unreachable_backend)?;
        let to = Backend {
            backends: self.relay.backends(),
            namespace: &target.namespace,
            service: authority.name,
            port: &port,
            https: authority.https,
        };
        if client.is_some() {
            let stream = to.connect().await.map_err(unreachable_backend)?;
            let request = Request::from_parts(parts, body);
            let encrypted_for = to.https.then(|| to.name());
            return self.send_on(stream, encrypted_for.as_deref(), request, client, None).await;
        }
        let repeatable = matches!(parts.method, Method::GET | Method::HEAD) && body.is_end_stream();
        let answer = if repeatable {
            timeout(LONGEST_WAIT, to.ask_until_answered(&parts)).await
        } else {
            timeout(LONGEST_WAIT, to.ask(Request::from_parts(parts, body))).await
        };
        match answer {
            Ok(answer) => answer.map_err(unreachable_backend),
            Err(_) => {
                Err(Status::new(504, "Timeout", "Timeout: the service did not begin to answer in time"))
            }
        }
    }
}

struct Backend<'a> {
    backends: &'a dyn Backends,
    namespace: &'a str,
    service: &'a str,
    port: &'a str,
    https: bool,
}

impl Backend<'_> {
    /// Asks once.
    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, BackendError> {
        let stream = self.connect().await?;
        if self.https {
            let stream = tls::encrypt(stream, &self.name()).await.map_err(BackendError::Connect)?;
            return send(stream, request).await;
        }
        send(stream, request).await
    }

    async fn connect(&self) -> Result<TcpStream, BackendError> {
        let stream = self.backends.connect(self.namespace, self.service, self.port).await;
        stream.map_err(BackendError::Connect)
    }

    /// The service's name as that of a host.
    fn name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Asks up to [`ATTEMPTS`] times: at once after a failure, else whenever patience is over.
    async fn ask_until_answered(&self, parts: &http::request::Parts) -> Result<Response<Body>, BackendError> {
        let mut asked = FuturesUnordered::new();
        let mut attempts = 0;
        loop {
            if attempts < ATTEMPTS {
                attempts += 1;
                asked.push(self.ask(Request::from_parts(parts.clone(), full(""))));
            }
            let patience = async {
                if attempts < ATTEMPTS { sleep(PATIENCE).await } else { std::future::pending().await }
            };
            tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) if attempts == ATTEMPTS && asked.is_empty() => return Err(error),
                    Err(error) => tracing::debug!(%error, service = self.service, "a backend failed"),
                },
                () = patience => {}
            }
        }
    }
}

/// The port asked for as the service has it; without one, the only one it has.
fn port_of(service: &Object, asked: &str) -> Result<String, Status> {
    let ports =
        service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |port: &Value| port.get("port").and_then(Value::as_u64).unwrap_or_default().to_string();
    let name = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = match (asked, ports) {
        ("", [only]) => Some(only),
        ("", _) => None,
        (asked, ports) => ports.iter().find(|port| name(port) == asked || number(port) == asked),
    };
    let found = found.ok_or_else(|| {
        Status::unavailable(format!(
            "no endpoints available for service {:?}: name one of its ports",
            service.name()
        ))
    })?;
    Ok(number(found))
}
