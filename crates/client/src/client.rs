//! The client: requests, fresh asks, streams.

use crate::connection::{Endpoint, Stream};
use crate::response::{Answer, AskFailure, Response, refused, warning_text};
use crate::{Error, Input, Kubeconfig, Output, Watch, exec};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The bytes of an answer that a client holds at most: a list of all pods of the largest cluster that is promised, three times.
const LIMIT: usize = 256 << 20;
/// The bytes of an answer to a fresh ask, which is one object or a service's page.
const FRESH_LIMIT: usize = 16 << 20;
/// The bytes of a request that an API server takes: upstream's default, and ours.
const MOST_SENT: usize = 3 << 20;
/// The bytes of an error that is read: far more than any `Status`.
const ERROR_LIMIT: usize = 1 << 20;

/// A client of one API server. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    endpoint: Arc<Endpoint>,
    token: Option<HeaderValue>,
    timeout: Duration,
    largest_answer: usize,
    namespace: String,
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content {
    /// An object as JSON.
    Json,
    /// A JSON merge patch (RFC 7386).
    MergePatch,
    /// A strategic merge patch.
    StrategicMergePatch,
}

impl Content {
    fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Content::Json => "application/json",
            Content::MergePatch => "application/merge-patch+json",
            Content::StrategicMergePatch => "application/strategic-merge-patch+json",
        })
    }
}

impl Client {
    /// A client for the kubeconfig's server. Nothing is asked yet.
    pub fn new(config: &Kubeconfig) -> Result<Self, Error> {
        let token = match &config.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                    Error::Kubeconfig { origin: config.origin.clone(), why: "its token is not one".into() }
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Client {
            endpoint: Arc::new(Endpoint::new(config)?),
            token,
            timeout: Duration::from_secs(30),
            largest_answer: LIMIT,
            namespace: config.namespace.clone().unwrap_or_else(|| "default".into()),
        })
    }

    /// The same client (and connections) that waits this long for a whole answer; 30 s unless told.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Client { timeout, ..self.clone() }
    }

    /// The same client (and connections) that reads no longer answer than this, in bytes; 256 MiB unless told.
    pub fn with_largest_answer(&self, bytes: usize) -> Self {
        Client { largest_answer: bytes, ..self.clone() }
    }

    /// The namespace of the kubeconfig's context, `default` where it has none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The server's host and port.
    pub fn server(&self) -> &str {
        &self.endpoint.authority
    }

    /// Closes idle connections: the way to the server has changed, and they may lead nowhere.
    pub fn forget_connections(&self) {
        self.endpoint.forget();
    }

    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.request(Method::GET, path, None, None).await?.json()
    }

    /// Reads in a form other than JSON objects as they are, such as a `Table`; an `Accept` header says which.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value, Error> {
        self.request(Method::GET, path, None, Some(accept)).await?.json()
    }

    /// Creates an object in a collection.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.send(Method::POST, path, Content::Json, object).await?.json()
    }

    /// Changes an object.
    pub async fn patch(&self, path: &str, content: Content, patch: &Value) -> Result<Value, Error> {
        self.send(Method::PATCH, path, content, patch).await?.json()
    }

    /// Deletes an object (or, where it has finalizers or a grace period, begins to).
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.send(Method::DELETE, path, Content::Json, options).await?.json()
    }

    /// Sends JSON and reads the whole answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content: Content,
        body: &Value,
    ) -> Result<Response, Error> {
        self.request(method, path, Some((content, Bytes::from(body.to_string()))), None).await
    }

    /// Sends a request and reads the whole answer; a code other than 2xx is an error.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(Content, Bytes)>,
        accept: Option<&str>,
    ) -> Result<Response, Error> {
        let sent = body.as_ref().map_or(0, |(_, bytes)| bytes.len());
        let request = self.build(method, path, body, accept)?;
        let answered = self.in_time(self.timeout, async {
            let (response, connection) = self.endpoint.send(request).await?;
            let (parts, body) = response.into_parts();
            let limit = if parts.status.is_success() { self.largest_answer } else { ERROR_LIMIT };
            let body = self.endpoint.read(body, path, limit).await?;
            self.endpoint.keep(connection);
            if !parts.status.is_success() {
                return Err(refused(parts.status, &body));
            }
            let warnings = parts.headers.get_all(header::WARNING).iter();
            let warnings = warnings.filter_map(|w| warning_text(w.to_str().ok()?)).collect();
            Ok(Response { code: parts.status, body, warnings, path: path.to_owned() })
        });
        match answered.await {
            // A server that has read enough answers and closes, and the answer may be lost to what was still on its way.
            Err(Error::Broken { .. }) if sent > MOST_SENT => {
                Err(Error::TooLarge { path: path.to_owned(), bytes: sent, limit: MOST_SENT })
            }
            answered => answered,
        }
    }

    /// Asks over a connection of its own, as a user's first ask: TCP, TLS, one GET, closed. The time given is
    /// for all of it. Any code is an answer.
    pub async fn fresh(&self, path: &str, timeout: Duration) -> Result<Answer, AskFailure> {
        self.exchange(self.build(Method::GET, path, None, None)?, path, timeout).await
    }

    /// Changes an object over a connection of its own, likewise.
    pub async fn fresh_patch(
        &self,
        path: &str,
        content: Content,
        patch: &Value,
        timeout: Duration,
    ) -> Result<Answer, AskFailure> {
        let body = Some((content, Bytes::from(patch.to_string())));
        self.exchange(self.build(Method::PATCH, path, body, None)?, path, timeout).await
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        path: &str,
        timeout: Duration,
    ) -> Result<Answer, AskFailure> {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let ask = self.in_time(timeout, async {
            let (mut sender, mut driver) = self.endpoint.open().await?;
            let exchange = async {
                let response = sender.send_request(request).await.map_err(|e| self.endpoint.broken(e))?;
                let code = response.status().as_u16();
                let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
                let date = date.map(str::to_owned);
                let body = self.endpoint.read(response.into_body(), path, FRESH_LIMIT).await?;
                Ok(Answer { code, date, body })
            };
            // Driven here and not in a task: an ask that is given up takes its socket with it.
            tokio::pin!(exchange);
            tokio::select! {
                answer = &mut exchange => answer,
                () = &mut driver => exchange.await,
            }
        });
        Ok(ask.await?)
    }

    /// Begins an answer that goes on, such as a log that is followed. The client's timeout is for the answer's
    /// beginning.
    pub async fn stream(&self, path: &str, accept: Option<&str>) -> Result<Stream, Error> {
        let request = self.build(Method::GET, path, None, accept)?;
        self.in_time(self.timeout, async {
            // A connection of its own, since it never goes back to the others.
            let (response, connection) = self.endpoint.send(request).await?;
            let status: StatusCode = response.status();
            if !status.is_success() {
                let body = self.endpoint.read(response.into_body(), path, ERROR_LIMIT).await?;
                return Err(refused(status, &body));
            }
            Ok(Stream::new(response.into_body(), self.endpoint.authority.clone(), connection))
        })
        .await
    }

    /// Runs a command in a pod: `path` is that of its `exec`, with its query. `key` is drawn for the request (RFC 6455, section 4.1). The
    /// client's timeout is for the beginning.
    ///
    /// # Errors
    /// [`Error::Server`] where it is refused, [`Error::Answer`] from a server that speaks no `v5.channel.k8s.io` (older than Kubernetes 1.30).
    pub async fn exec(&self, path: &str, key: [u8; 16]) -> Result<(Input, Output), Error> {
        let mut request = self.build(Method::GET, path, None, Some("*/*"))?;
        exec::ask_for(request.headers_mut(), key);
        self.in_time(self.timeout, async {
            let (response, connection) = self.endpoint.send_alone(request).await?;
            let status = response.status();
            if status != StatusCode::SWITCHING_PROTOCOLS {
                let body = self.endpoint.read(response.into_body(), path, ERROR_LIMIT).await?;
                return Err(refused(status, &body));
            }
            if !exec::is_agreed(response.headers()) {
                let why = "it speaks no version of exec that this client does".to_owned();
                return Err(Error::Answer { path: path.to_owned(), why });
            }
            let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.endpoint.broken(error))?;
            // What drove it has nothing more to do.
            drop(connection);
            Ok(exec::open(upgraded, &self.endpoint.authority).await)
        })
        .await
    }

    /// Watches a collection: `path` with its query, without `watch=true`.
    pub async fn watch(&self, path: &str, accept: Option<&str>) -> Result<Watch, Error> {
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}watch=true");
        let stream = self.stream(&path, accept).await?;
        Ok(Watch::new(stream, path))
    }

    async fn in_time<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { server: self.endpoint.authority.clone(), after: timeout }),
        }
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        body: Option<(Content, Bytes)>,
        accept: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let wrong = |e: http::Error| Error::Request { path: path.to_owned(), why: e.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint.prefix))
            .header(header::HOST, &self.endpoint.authority)
            .header(header::USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, accept.unwrap_or("application/json"));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let body = match body {
            None => Bytes::new(),
            Some((content, bytes)) => {
                request = request.header(header::CONTENT_TYPE, content.media_type());
                bytes
            }
        };
        request.body(Full::new(body)).map_err(wrong)
    }
}
