//! An API server for tests: HTTPS on 127.0.0.1, a certificate of its own authority, answers by a function.

use crate::{Client, Kubeconfig};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) content: String,
    pub(crate) body: String,
}

pub(crate) struct TestServer {
    pub(crate) kubeconfig: Kubeconfig,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl TestServer {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut kubeconfig = Kubeconfig::anonymous(format!("https://{}", listener.local_addr().unwrap()));
        kubeconfig.certificate_authority = made.cert.pem().into_bytes();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let server = TestServer { kubeconfig, asked: asked.clone(), connections: connections.clone() };
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, asked, answer) = (acceptor.clone(), asked.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (asked, answer) = (asked.clone(), answer.clone());
                        async move {
                            let line = format!("{} {}", request.method(), request.uri());
                            let content = request.headers().get("content-type");
                            let content = content.map(|c| c.to_str().unwrap().to_owned()).unwrap_or_default();
                            let body = request.into_body().collect().await?.to_bytes();
                            let body = String::from_utf8(body.to_vec()).unwrap();
                            let ask = Asked { line, content, body };
                            let (code, text) = answer(&ask);
                            asked.lock().unwrap().push(ask);
                            let response =
                                Response::builder().status(code).body(Full::new(Bytes::from(text)));
                            Ok::<_, hyper::Error>(response.unwrap())
                        }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(tls), service).await);
                });
            }
        });
        server
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.kubeconfig).unwrap()
    }
}
