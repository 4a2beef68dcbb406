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
use server::{Backends, Body, Identity, Limits, Options, Server, Tokens};
use store::Memory;
use tokio::net::TcpStream;

use crate::corpus::Corpus;
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
            authority: None,
            limits: Limits::default(),
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
        let told = format!("{} {} {:?}\n", made.method, made.path, made.headers);
        let failure = |what: String| {
            let input = [told.as_bytes(), &made.body].concat();
            Box::new(Failure { target: "requests", seed, input, what })
        };
        let mut request = Request::builder().method(made.method.as_str()).uri(&made.path);
        for (name, value) in &made.headers {
            request = request.header(*name, *value);
        }
        let body: Body =
            Full::new(bytes::Bytes::from(made.body.clone())).map_err(|never| match never {}).boxed_unsync();
        // What HTTP itself forbids never comes this far.
        let Ok(request) = request.body(body) else { return Ok(0) };
        let who = Identity::new("admin", ["system:masters"]);
        let answer = std::panic::AssertUnwindSafe(self.server.handle(request, Some(who))).catch_unwind();
        let answer = match tokio::time::timeout(std::time::Duration::from_secs(70), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(failure("it panicked".into())),
            Err(_) => return Err(failure("it never ended".into())),
        };
        let code = answer.status().as_u16();
        let is_json = answer.headers().get("content-type").is_some_and(|kind| kind == "application/json");
        if code >= 400 && is_json {
            let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let status: Value = serde_json::from_slice(&body).unwrap_or_default();
            // Upstream has some of code 500 too that are the client's fault: they give no reason.
            if status["kind"] != "Status" || status["code"] != code || status["reason"] == "InternalError" {
                return Err(failure(format!("{code} is answered with {status}")));
            }
        }
        Ok(code)
    }
}

struct Made {
    method: String,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
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
    let headers = vec![("content-type", kind), ("accept", accept)];
    let body = recorded.get("body").filter(|body| !body.is_null()).cloned();
    let body = match body {
        None if method == "GET" => Vec::new(),
        body => {
            let other = &corpus.values[rng.random_range(0..corpus.values.len())];
            let value = body.unwrap_or_else(|| other.clone());
            let value = if rng.random_range(0..3) == 0 { value } else { mutate::tree(rng, value, other) };
            let bytes = match kind {
                "application/cbor" => api::to_cbor(&value),
                "application/vnd.kubernetes.protobuf" => {
                    value.as_object().and_then(api::to_protobuf).unwrap_or_default()
                }
                _ => value.to_string().into_bytes(),
            };
            if rng.random_range(0..8) == 0 {
                mutate::bytes(rng, bytes, other.to_string().as_bytes())
            } else {
                bytes
            }
        }
    };
    Made { method, path, headers, body }
}
