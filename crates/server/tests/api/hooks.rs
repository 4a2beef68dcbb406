//! A webhook for one test: it answers over TLS, and keeps what it was asked.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::tls::Authority;

type Answer = dyn Fn(&Value) -> Value + Send + Sync;

pub struct Hook {
    pub address: SocketAddr,
    pub bundle: String,
    /// The requests that it got, as of `request` in the reviews.
    pub asked: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// One that answers with `response` to a request; `null` breaks the connection.
    pub async fn new(response: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::waiting_for(response, None).await
    }

    /// One that only answers once the gate lets it, if there is one.
    pub async fn waiting_for(
        response: impl Fn(&Value) -> Value + Send + Sync + 'static,
        gate: Option<Arc<Notify>>,
    ) -> Self {
        let answer = move |review: &Value| {
            let mut response = response(&review["request"]);
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].clone();
            }
            json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
        };
        Self::reviewing(answer, gate).await
    }

    /// One that answers with `answer` to a whole review, once the gate lets it, if there is one.
    pub async fn reviewing(
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
        gate: Option<Arc<Notify>>,
    ) -> Self {
        let authority = Authority::new();
        Self::showing(answer, gate, Arc::new(authority.server_config(false)), &authority.pem()).await
    }

    /// Likewise, one that shows another certificate, with what vouches for it.
    pub async fn showing(
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
        gate: Option<Arc<Notify>>,
        tls: Arc<ServerConfig>,
        bundle: &str,
    ) -> Self {
        let (bundle, acceptor) = (STANDARD.encode(bundle), TlsAcceptor::from(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, answer.clone(), kept.clone(), gate.clone()));
            }
        });
        Hook { address, bundle, asked }
    }

    /// The `clientConfig` that leads to it.
    pub fn config(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/hook", self.address.port()), "caBundle": self.bundle})
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn last(&self) -> Value {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<Value>>>,
    gate: Option<Arc<Notify>>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, asked, gate) = (answer.clone(), asked.clone(), gate.clone());
        async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&bytes).unwrap();
            asked.lock().unwrap().push(review["request"].clone());
            if let Some(gate) = gate {
                gate.notified().await;
            }
            let body = answer(&review);
            let code = body["response"]["code"].as_u64().unwrap_or(200) as u16;
            let response = Response::builder().status(code).body(Full::<Bytes>::from(body.to_string()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

pub fn admitted() -> Value {
    json!({"allowed": true})
}

/// An answer that admits, with a patch.
pub fn patched(patch: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}
