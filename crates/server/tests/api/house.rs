//! A server with its store and its backends, for one test.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use audit::Auditor;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use server::{Backends, Body, Edge, FrontProxy, Limits, Options, Server, SystemEdge, Tokens, UserInfo};
use store::Memory;
use tokio::net::TcpStream;

/// What stands for the authority's certificate.
pub const CERTIFICATE: &str = "a certificate";

/// Backends of services: addresses that are tried by turns.
#[derive(Default)]
pub struct Turns {
    pub addresses: Mutex<Vec<SocketAddr>>,
    pub silent: Mutex<BTreeSet<String>>,
    /// Where no connection may lead.
    pub refused: Mutex<BTreeSet<IpAddr>>,
}

impl Backends for Turns {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<TcpStream, io::Error>> {
        Box::pin(async {
            let next = {
                let mut addresses = self.addresses.lock().unwrap();
                if !addresses.is_empty() {
                    addresses.rotate_left(1);
                }
                addresses.last().copied()
            };
            TcpStream::connect(next.ok_or(io::ErrorKind::NotConnected)?).await
        })
    }

    fn is_silent(&self, node: &str) -> bool {
        self.silent.lock().unwrap().contains(node)
    }

    fn allows(&self, address: IpAddr) -> bool {
        !self.refused.lock().unwrap().contains(&address)
    }
}

pub struct House {
    pub server: Arc<Server>,
    pub store: Arc<Memory>,
    pub backends: Arc<Turns>,
}

impl House {
    /// A server with the default objects.
    pub async fn new() -> Self {
        Self::with_agents(client_without_name()).await
    }

    /// Likewise, with a name for the servers of aggregated APIs.
    pub async fn with_front_proxy(front_proxy: FrontProxy) -> Self {
        let (tls, edge) = (client_without_name(), Arc::new(SystemEdge));
        Self::build(tls, Some(front_proxy), None, Limits::default(), edge, None).await
    }

    /// Likewise, believing agents as `tls` says.
    pub async fn with_agents(tls: rustls::ClientConfig) -> Self {
        Self::build(tls, None, None, Limits::default(), Arc::new(SystemEdge), None).await
    }

    /// Likewise, where certificates of other authorities than this one speak for no part of the cluster.
    pub async fn with_authority(authority: server::ClusterAuthority) -> Self {
        let (tls, edge) = (client_without_name(), Arc::new(SystemEdge));
        Self::build(tls, None, Some(authority), Limits::default(), edge, None).await
    }

    /// Likewise, whose clients may use up other things.
    pub async fn with_limits(limits: Limits) -> Self {
        Self::build(client_without_name(), None, None, limits, Arc::new(SystemEdge), None).await
    }

    /// Likewise, with another clock and other randomness.
    pub async fn driven(edge: Arc<dyn Edge>) -> Self {
        Self::build(client_without_name(), None, None, Limits::default(), edge, None).await
    }

    /// Likewise, believing agents as `tls` says, and telling somebody what requests did.
    pub async fn audited(tls: rustls::ClientConfig, audit: Auditor) -> Self {
        let edge = Arc::new(SystemEdge);
        Self::build(tls, None, None, Limits::default(), edge, Some(Arc::new(audit))).await
    }

    async fn build(
        tls: rustls::ClientConfig,
        front_proxy: Option<FrontProxy>,
        authority: Option<server::ClusterAuthority>,
        limits: Limits,
        edge: Arc<dyn Edge>,
        audit: Option<Arc<Auditor>>,
    ) -> Self {
        let (store, backends) = (Arc::new(Memory::default()), Arc::new(Turns::default()));
        let server = Server::new(Options {
            store: store.clone(),
            services: "10.96.0.0/16".parse().unwrap(),
            backends: backends.clone(),
            kubelet_client_tls: Arc::new(tls),
            front_proxy,
            authority,
            limits,
            tokens: Tokens::new(pki::TokenKey::create().unwrap(), CERTIFICATE),
            metrics: vec![Box::new(|out| out.push_str("measured_elsewhere 7\n"))],
            audit,
            edge,
        });
        server.bootstrap().await.unwrap();
        let keeping = server.clone();
        tokio::spawn(async move { keeping.keep_definitions().await });
        let house = House { server, store, backends };
        house.account("default").await;
        house
    }

    /// The account that pods of a namespace run as: no controllers run here that would make it.
    pub async fn account(&self, namespace: &str) {
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let (code, answer) = self.ask("POST", &path, Some(account)).await;
        assert_eq!(code, 201, "{answer}");
    }

    /// What the server answers an identity: code and JSON.
    pub async fn ask_as(&self, who: UserInfo, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let response = self.server.handle(request.body(body_of(body)).unwrap(), Some(who)).await;
        let code = response.status().as_u16();
        (code, serde_json::from_str(&text(response).await).unwrap_or_default())
    }

    /// Likewise, an administrator.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.ask_as(admin(), method, path, body).await
    }

    /// The response to a request without a body.
    pub async fn get(&self, path: &str) -> Response<Body> {
        self.server.handle(Request::get(path).body(body_of("")).unwrap(), Some(admin())).await
    }
}

pub fn body_of(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub fn admin() -> UserInfo {
    UserInfo::new("admin", ["system:masters"])
}

pub fn node(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), ["system:nodes"])
}

pub fn client_without_name() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
