//! A registry that does what a test wants of it, on loopback without TLS.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use images::Digest;
use serde_json::{Value, json};
use tracing::info_span;

use crate::made::{Made, gzip};

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type Reply = Response<Body>;
type Rule = Box<dyn Fn(&Seen, usize) -> Option<Reply> + Send>;

/// What somebody asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct State {
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    seen: Vec<Seen>,
    rule: Option<Rule>,
}

pub struct Registry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _server: Server,
}

struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// How a body ends before its end.
#[derive(Clone, Copy)]
pub enum End {
    Breaks,
    Hangs,
}

/// A body that says it has `length` bytes, and ends after the first ones.
pub fn broken(status: u16, headers: &[(&str, &str)], first: &[u8], length: usize, end: End) -> Reply {
    let first = futures::stream::iter([Ok(Frame::data(Bytes::copy_from_slice(first)))]);
    let rest = futures::stream::once(async move {
        match end {
            End::Breaks => {
                // What came before it is sent meanwhile.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Err(io::Error::other("broken"))
            }
            End::Hangs => std::future::pending().await,
        }
    });
    let body = StreamBody::new(first.chain(rest)).boxed_unsync();
    let mut reply = Response::builder().status(status).header("content-length", length);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(body).unwrap()
}

impl Registry {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let server = tasks::spawn(info_span!("registry"), async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                let serve = service_fn(move |request| answer(state.clone(), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(tcp), serve);
                let task = async move { drop(connection.await) };
                tasks::SpawnIn::spawn_in(&mut connections, info_span!("connection"), task);
            }
        });
        Registry { address, state, _server: Server(server) }
    }

    /// The name of one of its images.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Takes in an image; gives its manifest's descriptor.
    pub fn push(&self, tag: &str, image: &Made) -> Value {
        let (mut blobs, descriptor) = image.blobs(gzip);
        let digest = Digest::parse(descriptor["digest"].as_str().unwrap()).unwrap();
        let manifest = blobs.remove(&digest).unwrap();
        self.push_manifest(tag, descriptor["mediaType"].as_str().unwrap(), manifest);
        self.state.lock().unwrap().blobs.extend(blobs);
        descriptor
    }

    pub fn push_manifest(&self, tag: &str, media_type: &str, manifest: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&manifest);
        let mut state = self.state.lock().unwrap();
        for by in [tag.to_owned(), digest.to_string()] {
            state.manifests.insert(by, (media_type.to_owned(), manifest.clone()));
        }
        digest
    }

    pub fn blob(&self, digest: &Digest) -> Vec<u8> {
        self.state.lock().unwrap().blobs[digest].clone()
    }

    /// The layers' blobs of what was pushed: all but configurations.
    pub fn layers(&self) -> Vec<Digest> {
        let state = self.state.lock().unwrap();
        state
            .blobs
            .iter()
            .filter(|(_, content)| content.starts_with(&[0x1f, 0x8b]))
            .map(|(digest, _)| digest.clone())
            .collect()
    }

    /// What is answered otherwise than by a registry that is as it should be. The number counts the requests for a path.
    pub fn rule(&self, rule: impl Fn(&Seen, usize) -> Option<Reply> + Send + 'static) {
        self.state.lock().unwrap().rule = Some(Box::new(rule));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// How often something was asked for whose path has this in it.
    pub fn asked(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    assert_eq!(request.method(), Method::GET);
    let seen = Seen {
        path: request.uri().path_and_query().unwrap().to_string(),
        headers: request.headers().clone(),
    };
    let mut state = state.lock().unwrap();
    state.seen.push(seen.clone());
    let count = state.seen.iter().filter(|earlier| earlier.path == seen.path).count();
    let ruled = state.rule.as_ref().and_then(|rule| rule(&seen, count));
    Ok(ruled.unwrap_or_else(|| state.answer(&seen)))
}

impl State {
    fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.path.split('?').next().unwrap();
        let last = path.rsplit('/').next().unwrap();
        let missing = |code: &str| {
            let errors = json!({"errors": [{"code": code, "message": "there is none"}]});
            reply(404, &[], errors.to_string())
        };
        if path.contains("/manifests/") {
            return match self.manifests.get(last) {
                Some((media_type, manifest)) => {
                    let digest = Digest::sha256(manifest).to_string();
                    let headers = [("content-type", media_type.as_str()), ("docker-content-digest", &digest)];
                    reply(200, &headers, manifest.clone())
                }
                None => missing("MANIFEST_UNKNOWN"),
            };
        }
        let Some(blob) = Digest::parse(last).ok().and_then(|digest| self.blobs.get(&digest)) else {
            return missing("BLOB_UNKNOWN");
        };
        match seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')) {
            None => reply(StatusCode::OK.as_u16(), &[], blob.clone()),
            Some(from) => {
                let from: usize = from.parse().unwrap();
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                reply(206, &[("content-range", &range)], blob[from..].to_vec())
            }
        }
    }
}

/// Patience of a test: long enough for a busy machine where something should come, short where nothing does.
pub fn patience() -> images::Patience {
    images::Patience {
        connect: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        attempts: 4,
        pause: Duration::from_millis(1),
        longest: Duration::from_secs(2),
    }
}
