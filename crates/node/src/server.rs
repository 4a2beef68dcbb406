//! The agent's own API over HTTPS: logs, streams, pods, health, metrics, configuration. The API server asks it in the name of its host.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use objects::Reader;
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use store::KeyRange;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use crate::about;
use crate::host::{LogCursor, LogOptions, since_cut};
use crate::pod::all_containers;
use crate::pods::Host;
use crate::streams;

type Body = BoxBody<Bytes, Infallible>;

/// Connections at a time.
const CONNECTIONS: usize = 256;

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, host: Arc<Host>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the agent can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let (acceptor, host) = (acceptor.clone(), host.clone());
        connections.spawn(connection(stream, acceptor, host, Arc::new(place)));
    }
}

/// Serves one connection. `place` is given back once it is over, as another protocol too.
async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    host: Arc<Host>,
    place: Arc<OwnedSemaphorePermit>,
) {
    // Who lost power says nothing: a stream that nobody uses would stand for ever.
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive()) {
        tracing::debug!(%error, "a connection can't be kept alive");
    }
    let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream));
    let Ok(Ok(stream)) = handshake.await else { return };
    let caller = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| may(c));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (host, place) = (host.clone(), place.clone());
        async move {
            let answer = match caller {
                None => plain(StatusCode::UNAUTHORIZED, "Unauthorized"),
                Some(false) => {
                    plain(StatusCode::FORBIDDEN, "Forbidden: only the API's hosts and administrators")
                }
                Some(true) => route(&mut request, &host, place),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
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
    host: &Arc<Host>,
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
        ["containerLogs", namespace, pod, container] => logs(host, namespace, pod, container, query)
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

fn pods(host: &Host) -> Response<Body> {
    let state = host.store.snapshot();
    let mine = |pod: &Value| pod["spec"]["nodeName"] == *host.name;
    let prefix = KeyRange::prefix(objects::kind_prefix("", "pods"));
    let all =
        state.range(&prefix).filter_map(|kv| serde_json::from_slice::<Value>(&objects::stamped(kv)).ok());
    let items: Vec<Value> = all.filter(mine).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    json_answer(&list)
}

/// What a query asks of a log.
#[derive(Debug, Default)]
struct Asked {
    follow: bool,
    previous: bool,
    options: LogOptions,
}

fn asked(query: &str, now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || value.parse::<u64>().map_err(|_| format!("{name} must be a number, not {value:?}"));
        let yes = || match &*value {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{name} must be true or false, not {value:?}")),
        };
        match &*name {
            "follow" => asked.follow = yes()?,
            "previous" => asked.previous = yes()?,
            "timestamps" => asked.options.timestamps = yes()?,
            "tailLines" => asked.options.tail = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
            "limitBytes" => asked.options.limit = Some(number()?),
            "sinceSeconds" => {
                let ago = SignedDuration::from_secs(i64::try_from(number()?).unwrap_or(i64::MAX));
                asked.options.since = now.checked_sub(ago).ok().map(since_cut);
            }
            "sinceTime" => {
                let time = value.parse().map_err(|_| format!("sinceTime is no RFC 3339 time: {value:?}"))?;
                asked.options.since = Some(since_cut(time));
            }
            _ => {}
        }
    }
    Ok(asked)
}

fn logs(
    host: &Arc<Host>,
    namespace: &str,
    pod_name: &str,
    container: &str,
    query: &str,
) -> Result<Response<Body>, String> {
    let asked = asked(query, host.clock.now().wall)?;
    let pod = Reader::<Pod>::get(&host.store.snapshot(), namespace, pod_name);
    let on_me = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&host.name);
    let Some(pod) = pod.filter(on_me) else {
        let why = format!("pod \"{namespace}/{pod_name}\" is not on this host");
        return Ok(plain(StatusCode::NOT_FOUND, why));
    };
    if !all_containers(&pod).any(|c| c.name == container) {
        return Err(format!("container {container} is not valid for pod {pod_name}"));
    }
    let folder = host.folders.logs(&pod, container);
    let mut attempts: Vec<u32> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    attempts.sort_unstable();
    if asked.previous {
        attempts.pop();
        if attempts.is_empty() {
            let why = format!("previous terminated container {container:?} in pod {pod_name:?} not found");
            return Err(why);
        }
    }
    let Some(attempt) = attempts.last() else {
        let why =
            format!("container {container:?} in pod {pod_name:?} is waiting to start: ContainerCreating");
        return Err(why);
    };
    let path = folder.join(format!("{attempt}.log"));
    let progress = if asked.follow { host.logs.progress(&path) } else { None };
    let cursor = LogCursor::open(&folder, *attempt, asked.options).map_err(|e| e.to_string())?;
    let (send, lines) = mpsc::channel::<Bytes>(4);
    tokio::spawn(stream(cursor, progress, send));
    let frames = futures::stream::unfold(lines, |mut lines| async move {
        let bytes = lines.recv().await?;
        Some((bytes, lines))
    });
    let frames = frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = BodyExt::boxed(StreamBody::new(frames));
    Ok(response)
}

/// Sends a log's lines, and those to come for as long as it is written and somebody listens.
async fn stream(
    mut cursor: LogCursor,
    mut progress: Option<tokio::sync::watch::Receiver<crate::host::LogProgress>>,
    send: mpsc::Sender<Bytes>,
) {
    loop {
        let ended = progress.as_mut().is_none_or(|progress| progress.borrow_and_update().ended);
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let next = cursor.next();
                (next, cursor)
            });
            let Ok((next, returned)) = read.await else { return };
            cursor = returned;
            match next {
                Ok(Some(text)) => {
                    if !text.is_empty() && send.send(text.into()).await.is_err() {
                        return;
                    }
                    if cursor.is_full() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a container's log can't be read");
                    return;
                }
            }
        }
        let Some(progress) = progress.as_mut().filter(|_| !ended) else { return };
        tokio::select! {
            // An end is a change too: one more round for what came last.
            _ = progress.changed() => {}
            () = send.closed() => return,
        }
    }
}
