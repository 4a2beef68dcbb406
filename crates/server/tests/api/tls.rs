//! Which clients get in: those with certificates of the cluster's own authority, and nobody else.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::house::House;

/// A cluster's authority.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, user: &str, group: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (certificate, key) = self.sign(user, group);
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// A certificate and its key as PEM.
    pub fn issue_pem(&self, user: &str, group: &str) -> (String, String) {
        let (certificate, key) = self.sign(user, group);
        (certificate.pem(), key.serialize_pem())
    }

    /// The authority's own certificate as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn sign(&self, user: &str, group: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// A server that asks for certificates, and may insist.
    pub fn server_config(&self, insist: bool) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let verifier = if insist { verifier } else { verifier.allow_unauthenticated() };
        let (chain, key) = self.issue("server", "system:nodes");
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }

    /// A client with a certificate of a user and group, or without one.
    pub fn client_config(&self, who: Option<(&str, &str)>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match who.map(|(user, group)| self.issue(user, group)) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

/// Asks for the nodes over TLS; the answer is the code.
pub async fn nodes(
    address: SocketAddr,
    tls: ClientConfig,
    http2: bool,
) -> Result<u16, Box<dyn std::error::Error>> {
    get(address, tls, http2, "/api/v1/nodes").await
}

/// Asks for anything likewise.
async fn get(
    address: SocketAddr,
    mut tls: ClientConfig,
    http2: bool,
    path: &str,
) -> Result<u16, Box<dyn std::error::Error>> {
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    tls.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TokioIo::new(TlsConnector::from(Arc::new(tls)).connect(name, stream).await?);
    let request =
        Request::get(format!("https://{address}{path}")).header("host", "here").body(Empty::<Bytes>::new())?;
    let response = if http2 {
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let code = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(code)
}

#[tokio::test]
async fn only_certificates_of_the_cluster_get_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let house = House::new().await;
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls.clone()).unwrap();
    let address = listening.address();
    let bound_before = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other_listening = house.server.listen_on(bound_before, tls).unwrap();
    let admin = Some(("kubernetes-admin", "system:masters"));
    for http2 in [false, true] {
        assert_eq!(nodes(address, authority.client_config(admin), http2).await.unwrap(), 200);
        let member = Some(("system:node:n1", "system:nodes"));
        let code = nodes(address, authority.client_config(member), http2).await.unwrap();
        assert_eq!(code, 403, "known, and of nodes it may read its own");
        let other = Some(("somebody", "people"));
        assert_eq!(nodes(address, authority.client_config(other), http2).await.unwrap(), 403);
        assert_eq!(nodes(address, authority.client_config(None), http2).await.unwrap(), 401);

        // A certificate of another authority, shown to a server that the client would believe.
        let (chain, key) = stranger.issue("kubernetes-admin", "system:masters");
        let forged = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_client_auth_cert(chain, key)
            .unwrap();
        assert!(nodes(address, forged, http2).await.is_err());
    }

    let other_address = other_listening.address();
    assert_eq!(nodes(other_address, authority.client_config(admin), false).await.unwrap(), 200);
    drop(listening);
    for _ in 0..100 {
        if nodes(address, authority.client_config(admin), false).await.is_err() {
            assert_eq!(nodes(other_address, authority.client_config(admin), false).await.unwrap(), 200);
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("a listener that was dropped still answers");
}

#[tokio::test]
async fn connections_end_when_their_address_leaves_the_host() {
    let authority = Authority::new();
    let house = House::new().await;
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    let admin = Some(("kubernetes-admin", "system:masters"));
    let connector = TlsConnector::from(Arc::new(authority.client_config(admin)));
    let stream = TcpStream::connect(listening.address()).await.unwrap();
    let name = ServerName::IpAddress(listening.address().ip().into());
    let mut idle = connector.connect(name, stream).await.unwrap();
    assert_eq!(nodes(listening.address(), authority.client_config(admin), false).await.unwrap(), 200);

    listening.hang_up();
    let mut heard = Vec::new();
    let end = idle.read_to_end(&mut heard);
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("the caller hears of it").ok();
    // The address may come back.
    assert_eq!(nodes(listening.address(), authority.client_config(admin), false).await.unwrap(), 200);
}

#[tokio::test]
async fn no_certificate_by_request_speaks_for_the_cluster_itself() {
    let now = clock();
    let own = pki::Authority::create("holdfast", now).unwrap();
    let requests = pki::Authority::create("holdfast-requests", now).unwrap();
    let trust = own.trust().unwrap();
    let users = trust.and(&requests.trust().unwrap()).unwrap();
    let members = watch::Sender::new(Arc::new(BTreeSet::from(["n1".to_owned()])));
    let hosts = members.subscribe();
    let house = House::with_authority(server::ClusterAuthority {
        trust: trust.clone(),
        hosts,
        revoked: Default::default(),
    })
    .await;
    let names = ["127.0.0.1".parse().unwrap()];
    let subject =
        |user: &str, group: &str| pki::Subject { common_name: user.into(), organization: Some(group.into()) };
    let years = pki::Validity::years(now, 1);
    let server = own.issue(&subject("system:node:n1", "system:nodes"), &[], &names, years).unwrap();
    let tls = server.server_config(&users, pki::ClientAuth::Optional, &[b"http/1.1"]).unwrap();
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    let ask = async |authority: &pki::Authority, user: &str, group: &str| {
        let client = authority.issue(&subject(user, group), &[], &[], years).unwrap();
        let client = client.client_config(&trust, &[]).unwrap();
        nodes(listening.address(), ClientConfig::clone(&client), false).await.unwrap()
    };
    for (user, group, of_own, of_requests) in [
        ("jane", "dev", 403, 403),
        ("kubernetes-admin", "system:masters", 200, 401),
        ("system:kube-controller-manager", "x", 200, 401),
        ("system:kube-scheduler", "x", 200, 401),
        ("system:apiserver", "system:masters", 200, 401),
        ("system:node:n1", "system:nodes", 403, 401),
        ("system:node:n9", "system:nodes", 403, 403),
        ("jane", "system:nodes", 403, 401),
    ] {
        assert_eq!(ask(&own, user, group).await, of_own, "{user} {group}");
        assert_eq!(ask(&requests, user, group).await, of_requests, "{user} {group}, by request");
    }
    // A host that joins the members is one of the cluster's from then on.
    members.send_modify(|hosts| {
        Arc::make_mut(hosts).insert("n9".into());
    });
    assert_eq!(ask(&requests, "system:node:n9", "system:nodes").await, 401);
}

#[tokio::test]
async fn requests_go_on_while_the_certificates_of_both_sides_are_renewed() {
    let now = clock();
    let own = pki::Authority::create("holdfast", now).unwrap();
    let trust = own.trust().unwrap();
    let house = House::new().await;
    let issue = |user: &str, life: u64| {
        let subject = pki::Subject { common_name: user.into(), organization: Some("system:masters".into()) };
        let (names, life) = (["127.0.0.1".parse().unwrap()], Duration::from_secs(life));
        own.issue(&subject, &[], &names, pki::Validity::lasting(now, life)).unwrap()
    };
    let [server, client] = ["server", "client"].map(|user| pki::LiveIdentity::new(issue(user, 60)).unwrap());
    let tls = server.server_config(&trust, pki::ClientAuth::Optional, &[]).unwrap();
    let asks = client.client_config(&trust, &[b"http/1.1"]).unwrap();
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    let address = listening.address();
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TokioIo::new(TlsConnector::from(asks.clone()).connect(name, stream).await.unwrap());
    let (mut open, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for step in 0..5 {
        server.replace(issue("server", 120 + step)).unwrap();
        client.replace(issue("client", 120 + step)).unwrap();
        for http2 in [false, true] {
            assert_eq!(nodes(address, ClientConfig::clone(&asks), http2).await.unwrap(), 200, "{step}");
        }
        let request =
            Request::get("/api/v1/nodes").header("host", "here").body(Empty::<Bytes>::new()).unwrap();
        open.ready().await.unwrap();
        let response = open.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "the connection of before, at {step}");
        response.into_body().collect().await.unwrap();
    }
    // What is over opens nothing, until it is renewed; what was made with both stays as it was.
    let mut anew = ClientConfig::clone(&asks);
    anew.resumption = rustls::client::Resumption::disabled();
    let over = pki::Validity { from: now - Duration::from_secs(7200), until: now - Duration::from_secs(60) };
    let subject = pki::Subject { common_name: "server".into(), organization: None };
    let old = own.issue(&subject, &[], &["127.0.0.1".parse().unwrap()], over).unwrap();
    server.replace(old).unwrap();
    assert!(nodes(address, anew.clone(), false).await.is_err());
    server.replace(issue("server", 600)).unwrap();
    assert_eq!(nodes(address, anew, false).await.unwrap(), 200);
}

#[tokio::test]
async fn what_was_taken_back_speaks_for_nobody_from_then_on() {
    let now = clock();
    let own = pki::Authority::create("holdfast", now).unwrap();
    let trust = own.trust().unwrap();
    let (members, revoked) = (watch::Sender::default(), pki::RevokedKeys::default());
    let authority = server::ClusterAuthority {
        trust: trust.clone(),
        hosts: members.subscribe(),
        revoked: revoked.clone(),
    };
    let house = House::with_authority(authority).await;
    let keeping = house.server.clone();
    tokio::spawn(async move { keeping.keep_revocations().await });
    let names = ["127.0.0.1".parse().unwrap()];
    let subject =
        |user: &str| pki::Subject { common_name: user.into(), organization: Some("system:masters".into()) };
    let day = pki::Validity::lasting(now, Duration::from_secs(24 * 60 * 60));
    let server = own.issue(&subject("server"), &[], &names, day).unwrap();
    let tls = server.server_config(&trust, pki::ClientAuth::Optional, &[]).unwrap();
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    let of = |user: &str| own.issue(&subject(user), &[], &[], day).unwrap();
    let [jane, john, machine] = ["jane", "john", "machine"].map(of);
    let ask = async |who: &pki::Identity| {
        let client = who.client_config(&trust, &[]).unwrap();
        nodes(listening.address(), ClientConfig::clone(&client), false).await.unwrap()
    };
    for who in [&jane, &john, &machine] {
        assert_eq!(ask(who).await, 200);
    }
    // She watches while she is revoked, and once more by a WebSocket, which has left HTTP.
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut watching = Vec::new();
    for (headers, code) in [("", 200), (socket, 101)] {
        let connector = TlsConnector::from(jane.client_config(&trust, &[b"http/1.1"]).unwrap());
        let stream = TcpStream::connect(listening.address()).await.unwrap();
        let name = ServerName::IpAddress(listening.address().ip().into());
        let mut open = connector.connect(name, stream).await.unwrap();
        let request = format!("GET /api/v1/nodes?watch=1 HTTP/1.1\r\nHost: api\r\n{headers}\r\n");
        open.write_all(request.as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        open.read_exact(&mut begun).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&begun), format!("HTTP/1.1 {code}"));
        watching.push(open);
    }

    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let made = house.ask("POST", maps, Some(server::RevocationList::object())).await;
    assert_eq!(made.0, 201, "{made:?}");
    let (key, until) = (machine.key_hash().unwrap(), jiff::Timestamp::try_from(now).unwrap());
    for merge in [
        server::RevocationList::of_user("jane", until).unwrap(),
        server::RevocationList::of_key(&key.to_string(), "a machine", until),
    ] {
        let merged = house.ask("PATCH", server::RevocationList::PATH, Some(merge)).await;
        assert_eq!(merged.0, 200, "{merged:?}");
    }
    assert_eq!((ask(&jane).await, ask(&john).await, ask(&machine).await), (401, 200, 401));
    // Not even what anybody hears who shows nothing.
    let health = async |tls: Arc<ClientConfig>| {
        get(listening.address(), ClientConfig::clone(&tls), false, "/readyz").await.unwrap()
    };
    assert_eq!(health(jane.client_config(&trust, &[]).unwrap()).await, 401);
    assert_eq!(health(trust.client_config(&[]).unwrap()).await, 200);
    for mut open in watching {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), open.read_to_end(&mut rest));
        end.await.expect("what she watches ends").ok();
    }
    assert!(revoked.has(key) && !revoked.has(john.key_hash().unwrap()), "handshakes of hosts know too");
}

#[allow(clippy::disallowed_methods)] // A test is a driver: certificates are checked against today.
fn clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
