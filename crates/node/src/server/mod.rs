//! The agent's own API over HTTPS: logs, streams, pods, health, metrics, configuration. The API server asks it in the name of its host.
//!
//! Nobody without a certificate holds a place here: each has a few seconds for the handshake, and one that comes later
//! takes the place of the one that has been at it for longest.

mod logs;
mod strangers;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use store::KeyRange;
use tasks::SpawnIn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::info_span;

use self::strangers::{Stranger, Strangers};
use crate::about;
use crate::pods::PodHost;
use crate::stats;
use crate::streams;

type Body = BoxBody<Bytes, Infallible>;

/// Connections of clients that may ask, at a time: each log that is followed and each session takes one, with some 40 KB of
/// buffers.
const CONNECTIONS: usize = 256;
/// Connections at a time that are still in their handshake: half as many, for a handshake is over in milliseconds.
const STRANGERS: usize = 128;
/// How long a handshake may take, and how long one without a certificate may take to hear that it needs one.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the head of a request may take, the wait for it included.
const HEAD: Duration = Duration::from_secs(30);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, host: Arc<PodHost>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let strangers = Strangers::new(STRANGERS);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "the agent can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let (acceptor, host, places) = (acceptor.clone(), host.clone(), places.clone());
        let stranger = strangers.enter(peer);
        connections.spawn_in(info_span!("agent connection", %peer), async move {
            let Some(stream) = introduced(stream, &acceptor, stranger).await else { return };
            let Ok(place) = places.acquire_owned().await else { return };
            connection(stream, host, Arc::new(place)).await;
        });
    }
}

/// The connection of a caller who may ask. Others are refused and disconnected, as is one that is too slow or has to
/// make room.
async fn introduced(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    stranger: Stranger,
) -> Option<TlsStream<TcpStream>> {
    // A caller that lost power says nothing: its unused stream would stay open for ever.
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive()) {
        tracing::debug!(%error, "a connection can't be kept alive");
    }
    let work = async {
        let stream = acceptor.accept(stream).await.ok()?;
        let caller = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let (status, why) = match caller.map(|certificate| may(certificate)) {
            Some(true) => return Some(stream),
            Some(false) => (StatusCode::FORBIDDEN, "Forbidden: only the API's hosts and administrators"),
            None => (StatusCode::UNAUTHORIZED, "Unauthorized"),
        };
        let service = service_fn(move |_| std::future::ready(Ok::<_, Infallible>(plain(status, why))));
        let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
        None
    };
    tokio::select! {
        done = tokio::time::timeout(HANDSHAKE, work) => done.ok().flatten(),
        () = stranger.must_leave() => None,
    }
}

/// Serves one connection. `place` is given back once it is over, as another protocol too.
async fn connection(stream: TlsStream<TcpStream>, host: Arc<PodHost>, place: Arc<OwnedSemaphorePermit>) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (host, place) = (host.clone(), place.clone());
        async move {
            if request.method() == Method::GET
                && let Some(answer) = figures(request.uri(), &host).await
            {
                return Ok(answer);
            }
            Ok::<_, Infallible>(route(&mut request, &host, place))
        }
    });
    let mut builder = http1::Builder::new();
    let _ = builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// What is asked of everybody before it is answered: what the host and its pods use.
async fn figures(uri: &http::Uri, host: &Arc<PodHost>) -> Option<Response<Body>> {
    match uri.path() {
        "/metrics/resource" => Some(plain(StatusCode::OK, stats::resources(host).await)),
        "/metrics/cadvisor" => Some(plain(StatusCode::OK, stats::cadvisor(host).await)),
        "/stats/summary" => {
            let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
            let only = query.any(|(name, value)| name == "only_cpu_and_memory" && value == "true");
            Some(json_answer(&stats::summary(host, only).await))
        }
        _ => None,
    }
}

/// Whether the certificate is an administrator's or a host's.
fn may(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let subject = certificate.subject();
    let organizations: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    organizations.contains(&"system:masters")
        || (organizations.contains(&"system:nodes") && name.starts_with("system:node:"))
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(text));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn route(
    request: &mut Request<Incoming>,
    host: &Arc<PodHost>,
    place: Arc<OwnedSemaphorePermit>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut *request);
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = request.uri().query().unwrap_or_default();
    if matches!(*request.method(), Method::GET | Method::POST)
        && let Some(answer) = streams::answer(host, &parts, query, request.headers(), upgrade, place)
    {
        return match answer {
            Ok(headers) => {
                let mut response = Response::new(body(""));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                *response.headers_mut() = headers;
                response
            }
            Err((status, why)) => plain(status, why),
        };
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here");
    }
    match parts[..] {
        ["healthz"] => plain(StatusCode::OK, "ok"),
        ["pods"] => pods(host),
        ["metrics"] => plain(StatusCode::OK, about::metrics(host)),
        ["configz"] => json_answer(&about::configuration(host)),
        ["containerLogs", namespace, pod, container] => logs::logs(host, namespace, pod, container, query)
            .unwrap_or_else(|why| plain(StatusCode::BAD_REQUEST, why)),
        _ => plain(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// After a quarter of a minute without a sign of life a connection is gone.
fn keepalive() -> TcpKeepalive {
    let (idle, interval) = (Duration::from_secs(6), Duration::from_secs(3));
    TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3)
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut response = Response::new(body(value.to_string()));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn pods(host: &PodHost) -> Response<Body> {
    let state = host.store.snapshot();
    let mine = |pod: &Value| pod["spec"]["nodeName"] == *host.name;
    let prefix = KeyRange::prefix(objects::kind_prefix("", "pods"));
    let all =
        state.range(&prefix).filter_map(|kv| serde_json::from_slice::<Value>(&objects::stamped(kv)).ok());
    let items: Vec<Value> = all.filter(mine).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    json_answer(&list)
}
