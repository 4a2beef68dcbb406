//! Clients that don't read what they asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::json;
use server::{Limits, Listening};
use store::{Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::house::{House, text};
use crate::tls::Authority;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

async fn put(house: &House, name: &str, bytes: usize) {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
        "data": {"text": "x".repeat(bytes)}});
    let key = objects::key("", "configmaps", "default", name);
    house.store.txn(Txn::put(key, object.to_string())).await.unwrap();
}

/// A house with four megabytes of ConfigMaps.
async fn start(limits: Limits) -> (House, Authority, Listening) {
    let (house, authority) = (House::with_limits(limits).await, Authority::new());
    for number in 0..40 {
        put(&house, &format!("m{number}"), 100_000).await;
    }
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    (house, authority, listening)
}

struct Client {
    address: SocketAddr,
    requests: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<()>,
}

impl Client {
    /// A client that takes `window` bytes of an answer before it reads them.
    async fn new(address: SocketAddr, authority: &Authority, window: u32) -> Self {
        let mut tls = authority.client_config(Some(("kubernetes-admin", "system:masters")));
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let mut builder = Builder::new(TokioExecutor::new());
        let builder = builder.initial_stream_window_size(window).initial_connection_window_size(1 << 24);
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        Client { address, requests, connection }
    }

    async fn get(&mut self, path: &str) -> hyper::Result<http::Response<Incoming>> {
        let request = Request::get(format!("https://{}{path}", self.address));
        self.requests.send_request(request.body(Empty::new()).unwrap()).await
    }

    async fn until_cut(self) {
        tokio::time::timeout(LONG, self.connection).await.expect("who doesn't read is cut off").unwrap();
    }
}

#[tokio::test]
async fn lists_that_nobody_reads_make_room_for_those_who_read() {
    let limits = Limits { unread_bytes: 6 << 20, unread_for: Duration::from_secs(15), ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    // The first has room, and the second waits for it until the first has read nothing for a second.
    let mut deaf = Client::new(listening.address(), &authority, 0).await;
    let first = deaf.get(MAPS).await.unwrap();
    let mut next = Client::new(listening.address(), &authority, 0).await;
    let second = next.get(MAPS).await.unwrap();
    deaf.until_cut().await;
    let mut reader = Client::new(listening.address(), &authority, 1 << 16).await;
    let third = reader.get(MAPS).await.unwrap();
    next.until_cut().await;
    assert_eq!([first.status(), second.status(), third.status()], [200; 3]);
    let body = third.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() > 4_000_000, "who reads gets all of it");
}

#[tokio::test]
async fn who_reads_nothing_for_too_long_is_cut_off_though_there_is_room() {
    let limits = Limits { unread_for: Duration::from_millis(300), ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    for path in [MAPS.to_owned(), format!("{MAPS}/m1"), format!("{MAPS}?watch=1&resourceVersion=0")] {
        let mut deaf = Client::new(listening.address(), &authority, 0).await;
        let _answer = deaf.get(&path).await.unwrap();
        deaf.until_cut().await;
    }
    // A watch that nothing waits for is as long as it likes.
    let mut quiet = Client::new(listening.address(), &authority, 0).await;
    let _answer = quiet.get("/api/v1/namespaces/default/secrets?watch=1").await.unwrap();
    let mut deaf = Client::new(listening.address(), &authority, 0).await;
    let _answer = deaf.get(MAPS).await.unwrap();
    deaf.until_cut().await;
    assert!(!quiet.connection.is_finished());
}

#[tokio::test]
async fn a_watch_that_falls_behind_is_ended_and_others_go_on() {
    let limits = Limits { unread_for: Duration::from_secs(1), ..Limits::default() };
    let (house, authority, listening) = start(limits).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", house.store.snapshot().revision());
    let mut deaf = TcpStream::connect(listening.address()).await.unwrap();
    let mut tls = authority.client_config(Some(("kubernetes-admin", "system:masters")));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::IpAddress(listening.address().ip().into());
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, &mut deaf).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").as_bytes()).await.unwrap();
    let mut client = Client::new(listening.address(), &authority, 1 << 20).await;
    let mut events = client.get(&path).await.unwrap().into_body();
    let running = async || {
        let metrics = text(house.get("/metrics").await).await;
        let line = metrics.lines().find(|line| line.starts_with("apiserver_longrunning_requests{"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let behind = async {
        while running().await < 2 {
            tokio::task::yield_now().await;
        }
        // More than the kernel keeps for it.
        let (mut number, mut read) = (0, 0);
        while running().await == 2 {
            put(&house, "one", 1_000_000 + number).await;
            number += 1;
            while read < number * 1_000_000 {
                read += events.frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
        }
    };
    tokio::time::timeout(LONG, behind).await.expect("it is ended");
    put(&house, "one", 10).await;
    assert!(events.frame().await.unwrap().is_ok(), "a reader gets what comes next");
}

#[tokio::test]
async fn a_web_socket_that_nobody_reads_is_ended() {
    let limits = Limits { unread_for: Duration::from_millis(300), ..Limits::default() };
    let (house, authority, listening) = start(limits).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", house.store.snapshot().revision());
    let stream = TcpStream::connect(listening.address()).await.unwrap();
    let tls = authority.client_config(Some(("kubernetes-admin", "system:masters")));
    let name = ServerName::IpAddress(listening.address().ip().into());
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    // More than the kernel keeps for it.
    for number in 0..16 {
        put(&house, "one", 1_000_000 + number).await;
    }
    let ended = async {
        while text(house.get("/metrics").await)
            .await
            .lines()
            .any(|line| line.starts_with("apiserver_longrunning_requests{") && !line.ends_with(" 0"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("it is ended");
}

#[tokio::test]
async fn a_watch_far_behind_is_told_all_of_it_in_parts_that_are_bounded() {
    let house = House::new().await;
    let begin = house.store.snapshot().revision();
    for number in 0..400 {
        put(&house, "one", 30_000 + number).await;
    }
    let watch = house.get(&format!("{MAPS}?watch=1&resourceVersion={begin}&timeoutSeconds=1")).await;
    let mut body = watch.into_body();
    let (mut all, mut largest) = (Vec::new(), 0);
    while all.iter().filter(|byte| **byte == b'\n').count() < 400 {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        largest = largest.max(data.len());
        all.extend_from_slice(&data);
    }
    assert!(largest <= 32 << 10, "{largest}");
    let lengths = all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let event: serde_json::Value = serde_json::from_slice(line).unwrap();
        event["object"]["data"]["text"].as_str().unwrap().len()
    });
    assert!(lengths.eq(30_000..30_400), "each once, and in order");
}
