//! Whole requests to a server over a store in memory: every answer to a bad one is a `Status` with its own code, and
//! none is the server's fault.

use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt, Full};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use server::{Backends, Body, Limits, Options, Server, Tokens, UserInfo};
use store::Memory;
use tokio::net::TcpStream;

use crate::corpus::Corpus;
use crate::cost::{self, Cost};
use crate::law::{self, Law};
use crate::mutate;
use crate::run::Failure;

struct Nowhere;

impl Backends for Nowhere {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<TcpStream, io::Error>> {
        Box::pin(futures::future::ready(Err(io::ErrorKind::NotConnected.into())))
    }

    fn is_silent(&self, _: &str) -> bool {
        true
    }

    fn allows(&self, _: std::net::IpAddr) -> bool {
        false
    }
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const QUERIES: [&str; 16] = [
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "labelSelector",
    "fieldSelector",
    "timeout",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "propagationPolicy",
    "pretty",
    "includeObject",
    "sendInitialEvents",
];
const TYPES: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/cbor",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
];

/// What a request costs before its body is looked at, tables that are made once among it; and what each byte may cost that it
/// brings or is answered.
const LAW: Law = Law { base: 64 << 20, per_byte: 3000 };
/// How long the answer to a bad request is, whatever is wrong with it; more is allowed for what it repeats.
const MOST_TOLD: usize = 64 << 10;
/// How often a time is taken that looks like a fault.
const AGAIN: usize = 3;

/// A server, and requests that are made of recorded ones.
pub struct Requests {
    server: Arc<Server>,
}

impl Requests {
    /// A fresh server with its default objects.
    ///
    /// # Errors
    /// If the server can't be made.
    pub async fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let server = Server::new(Options {
            store: Arc::new(Memory::default()),
            services: "10.96.0.0/16".parse()?,
            backends: Arc::new(Nowhere),
            kubelet_client_tls: Arc::new(tls),
            front_proxy: None,
            tokens: Tokens::new(pki::TokenKey::create()?, ""),
            edge: Arc::new(server::SystemEdge),
            authority: None,
            limits: Limits::default(),
            metrics: Vec::new(),
            audit: None,
        });
        server.bootstrap().await.map_err(|status| anyhow::anyhow!("{status}"))?;
        Ok(Requests { server })
    }

    /// Sends the request of a seed; the answer is its code.
    ///
    /// # Errors
    /// If it fails.
    pub async fn send(&self, corpus: &Corpus, seed: u64) -> Result<u16, Box<Failure>> {
        let made = make(&mut StdRng::seed_from_u64(seed), corpus);
        Ok(self.ask(&made, seed).await?.0)
    }

    /// Sends a request whose body grows, at three lengths.
    ///
    /// # Errors
    /// If it fails, or costs more than it should.
    pub async fn send_growing(&self, corpus: &Corpus, seed: u64) -> Result<u16, Box<Failure>> {
        let rng = &mut StdRng::seed_from_u64(seed);
        let Some((request, growing)) = make_growing(rng, corpus) else { return Ok(0) };
        let bodies = crate::run::lengths(&growing);
        let (mut code, mut asked, mut grown) = (0, 0, [(0, Cost::default()); 3]);
        for again in 0..=AGAIN {
            for ((length, least), body) in grown.iter_mut().zip(&bodies) {
                asked += 1;
                // Each makes an object of its own.
                let name = format!("{asked:0>width$}", width = NAME.len());
                let (path, body) = (request.path.replace(NAME, &name), replaced(body, &name));
                let made =
                    Made { path, body, method: request.method.clone(), headers: request.headers.clone() };
                let (answered, cost) = self.ask(&made, seed).await?;
                code = answered;
                *length = made.body.len();
                let time = if again == 0 { cost.time } else { cost.time.min(least.time) };
                *least = Cost { time, ..cost };
            }
            if law::judge_growth(&grown).is_ok() {
                return Ok(code);
            }
        }
        let Err(what) = law::judge_growth(&grown) else { return Ok(code) };
        let [_, _, body] = bodies;
        let input =
            [format!("{} {} {:?}\n", request.method, request.path, request.headers).into_bytes(), body]
                .concat();
        Err(Box::new(Failure { target: "requests", seed, input, what }))
    }

    async fn ask(&self, made: &Made, seed: u64) -> Result<(u16, Cost), Box<Failure>> {
        let told = format!("{} {} {:?}\n", made.method, made.path, made.headers);
        let failure = |what: String| {
            let input = [told.as_bytes(), &made.body].concat();
            Box::new(Failure { target: "requests", seed, input, what })
        };
        let mut request = Request::builder().method(made.method.as_str()).uri(&made.path);
        for (name, value) in &made.headers {
            request = request.header(*name, value);
        }
        let body: Body =
            Full::new(bytes::Bytes::from(made.body.clone())).map_err(|never| match never {}).boxed_unsync();
        // What HTTP itself forbids never comes this far.
        let Ok(request) = request.body(body) else { return Ok((0, Cost::default())) };
        let is_named = made.headers.iter().any(|(name, _)| *name == "authorization");
        let who = (!is_named).then(|| UserInfo::new("admin", ["system:masters"]));
        let answered = async {
            let answer = self.server.handle(request, who).await;
            let code = answer.status().as_u16();
            let kind = answer.headers().get("content-type").cloned();
            // A list is made piece by piece; what is watched has no end.
            let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            (code, kind, body)
        };
        let answered = std::panic::AssertUnwindSafe(answered).catch_unwind();
        let (answered, cost) =
            cost::of_waiting(tokio::time::timeout(std::time::Duration::from_secs(70), answered)).await;
        let (code, kind, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(failure("it panicked".into())),
            Err(_) => return Err(failure("it never ended".into())),
        };
        // A list is as long as what is there, which is nobody's fault.
        LAW.judge(told.len() + made.body.len() + body.len(), cost).map_err(failure)?;
        let is_json = kind.is_some_and(|kind| kind == "application/json");
        if code >= 400 && is_json {
            let status: Value = serde_json::from_slice(&body).unwrap_or_default();
            // Upstream has some of code 500 too that are the client's fault: they give no reason.
            if status["kind"] != "Status" || status["code"] != code || status["reason"] == "InternalError" {
                return Err(failure(format!("{code} is answered with {status}")));
            }
            let most = MOST_TOLD + 4 * (told.len() + made.body.len());
            if body.len() > most {
                return Err(failure(format!("{} bytes say why: more than {most}", body.len())));
            }
        }
        Ok((code, cost))
    }
}

#[derive(Debug, Clone)]
struct Made {
    method: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn make(rng: &mut StdRng, corpus: &Corpus) -> Made {
    let recorded = &corpus.requests[rng.random_range(0..corpus.requests.len())];
    let text = |key: &str| recorded[key].as_str().unwrap_or_default().to_owned();
    let mut method = text("method");
    if rng.random_range(0..5) == 0 {
        method = METHODS[rng.random_range(0..METHODS.len())].to_owned();
    }
    let mut path = text("path").replace("{rv}", "1").replace("watch=", "nowatch=");
    for _ in 0..rng.random_range(0..3) {
        let word = QUERIES[rng.random_range(0..QUERIES.len())];
        let value: String = mutate::word(rng).bytes().map(|byte| format!("%{byte:02x}")).collect();
        path += &format!("{}{word}={value}", if path.contains('?') { '&' } else { '?' });
    }
    if rng.random_range(0..10) == 0 {
        let bent = mutate::bytes(rng, path.clone().into_bytes(), b"/status/scale/namespaces/default/%2F%00");
        path = String::from_utf8_lossy(&bent).into_owned();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
    }
    let mut kind = if method == "PATCH" { TYPES[rng.random_range(4..8)] } else { TYPES[0] };
    if rng.random_range(0..6) == 0 {
        kind = TYPES[rng.random_range(0..8)];
    }
    let accept = if rng.random_range(0..3) == 0 { TYPES[rng.random_range(0..TYPES.len())] } else { TYPES[0] };
    let mut headers = vec![("content-type", kind.to_owned()), ("accept", accept.to_owned())];
    if rng.random_range(0..12) == 0 {
        headers.push(("authorization", token(rng)));
    }
    let body = recorded.get("body").filter(|body| !body.is_null()).cloned();
    let body = match body {
        None if method == "GET" => Vec::new(),
        body => {
            let other = &corpus.values[rng.random_range(0..corpus.values.len())];
            let value = body.unwrap_or_else(|| other.clone());
            let value = if rng.random_range(0..3) == 0 { value } else { mutate::tree(rng, value, other) };
            let bytes = written(kind, &value);
            if rng.random_range(0..8) == 0 {
                mutate::bytes(rng, bytes, other.to_string().as_bytes())
            } else {
                bytes
            }
        }
    };
    Made { method, path, headers, body }
}

/// A body as its content type has it.
fn written(kind: &str, value: &Value) -> Vec<u8> {
    match kind {
        "application/cbor" => machinery::to_cbor(value),
        "application/vnd.kubernetes.protobuf" => {
            value.as_object().and_then(api::to_protobuf).unwrap_or_default()
        }
        "application/yaml" | "application/apply-patch+yaml" => values::to_yaml(value).into_bytes(),
        _ => value.to_string().into_bytes(),
    }
}

/// What may stand where a token is expected.
fn token(rng: &mut StdRng) -> String {
    let head = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMiLCJzdWIiOiJ4In0.AAAA";
    let bent = mutate::bytes(rng, head.into(), b"e30.e30.e30");
    let bent: String =
        bent.into_iter().map(|byte| char::from(byte & 0x7f)).filter(|c| !c.is_control()).collect();
    format!("{}{bent}", ["Bearer ", "bearer ", "Basic ", ""][rng.random_range(0..4)])
}

/// The place of an object's name, which is another one in each request.
const NAME: &str = "grown-object-of-this-name";

/// Another name of the same length: some content types say how long a text is.
fn replaced(body: &[u8], name: &str) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut from = 0;
    while let Some(at) = body[from..].windows(NAME.len()).position(|window| window == NAME.as_bytes()) {
        body[from + at..from + at + NAME.len()].copy_from_slice(name.as_bytes());
        from += at + NAME.len();
    }
    body
}

/// A recorded create as one that grows: sent as it was, in another content type, or applied.
fn make_growing(rng: &mut StdRng, corpus: &Corpus) -> Option<(Made, crate::grow::Growing)> {
    let creates: Vec<&Value> =
        corpus.requests.iter().filter(|r| r["method"] == "POST" && r["body"].is_object()).collect();
    let recorded = creates[rng.random_range(0..creates.len())];
    let mut body = recorded["body"].clone();
    let path = recorded["path"].as_str()?.split('?').next()?.to_owned();
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.insert("name".into(), NAME.into());
    }
    let kinds =
        ["application/json", "application/yaml", "application/cbor", "application/vnd.kubernetes.protobuf"];
    let (method, path, kind) = match rng.random_range(0..4) {
        0 => ("PATCH", format!("{path}/{NAME}?fieldManager=fuzz"), "application/apply-patch+yaml"),
        _ => ("POST", path, kinds[rng.random_range(0..kinds.len())]),
    };
    let headers = vec![("content-type", kind.to_owned()), ("accept", "application/json".to_owned())];
    let made = Made { method: method.to_owned(), path, headers, body: Vec::new() };
    if rng.random_range(0..4) == 0 {
        // What nobody forbids, so that some go all the way.
        return Some((
            made,
            Box::new(move |times| {
                let mut body = body.clone();
                let annotations = (0..times).map(|n| (format!("n{n}"), "grown".into())).collect();
                body["metadata"]["annotations"] = Value::Object(annotations);
                written(kind, &body)
            }),
        ));
    }
    if rng.random_range(0..4) == 0 {
        return Some((made, crate::grow::bytes(rng, &written(kind, &body))));
    }
    let tree = crate::grow::tree(rng, body);
    Some((made, Box::new(move |times| written(kind, &tree(times)))))
}
