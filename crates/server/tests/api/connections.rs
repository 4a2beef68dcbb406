//! A client that takes up connections without saying who it is takes them from nobody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use server::{Limits, Listening};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::house::House;
use crate::tls::{Authority, nodes};

const ADMIN: Option<(&str, &str)> = Some(("kubernetes-admin", "system:masters"));
/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

async fn start(limits: Limits) -> (House, Authority, Listening) {
    let (house, authority) = (House::with_limits(limits).await, Authority::new());
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    (house, authority, listening)
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    who: Option<(&str, &str)>,
    protocol: &[u8],
) -> TlsStream<TcpStream> {
    let mut tls = authority.client_config(who);
    tls.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
}

/// The head of the answer to a request for the nodes, on a connection that stays.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /api/v1/nodes HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut head = vec![0; 4096];
    let length = stream.read(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[..length]).to_lowercase()
}

/// Waits until the other side has ended a connection.
async fn ended(mut stream: impl AsyncReadExt + Unpin) {
    let mut heard = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut heard)).await.expect("it is ended").ok();
}

#[tokio::test]
async fn idle_strangers_end_each_other_and_nobody_else() {
    // Nobody ends for want of a request here.
    let (headers, handshake) = (10 * LONG, 10 * LONG);
    let limits =
        Limits { connections: 8, strangers: 4, strangers_a_peer: 4, headers, handshake, ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    let address = listening.address();
    let mut known = connect(address, &authority, ADMIN, b"http/1.1").await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(address).await.unwrap());
        let shaken = connect(address, &authority, None, b"h2").await;
        idle.push(shaken.into_inner().0);
    }
    assert_eq!(nodes(address, authority.client_config(ADMIN), false).await.unwrap(), 200);
    assert_eq!(nodes(address, authority.client_config(ADMIN), true).await.unwrap(), 200);
    for stream in idle.drain(..32) {
        ended(stream).await;
    }
    assert!(ask(&mut known).await.starts_with("http/1.1 200"), "who is known stays");
}

#[tokio::test]
async fn a_connection_without_a_request_ends() {
    let limits = Limits { headers: Duration::from_millis(300), ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    for (who, protocol) in [(ADMIN, &b"h2"[..]), (None, b"h2"), (ADMIN, b"http/1.1"), (None, b"http/1.1")] {
        ended(connect(listening.address(), &authority, who, protocol).await).await;
        let mut stream = connect(listening.address(), &authority, who, protocol).await;
        // The beginning of one, and no more.
        let begin: &[u8] = if protocol == b"h2" { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"GET /" };
        stream.write_all(begin).await.unwrap();
        ended(stream).await;
    }
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the clock tells how long it stays")]
async fn a_connection_may_be_idle_between_requests_for_longer_than_one_may_take() {
    let headers = Duration::from_millis(300);
    let limits = Limits { headers, idle: Duration::from_secs(2), ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    let mut idle = connect(listening.address(), &authority, ADMIN, b"http/1.1").await;
    assert!(ask(&mut idle).await.starts_with("http/1.1 200"));
    let since = std::time::Instant::now();
    ended(idle).await;
    assert!(since.elapsed() > 3 * headers, "it stays though nothing comes");

    let limits = Limits { headers, idle: 10 * LONG, ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    let mut begun = connect(listening.address(), &authority, ADMIN, b"http/1.1").await;
    for _ in 0..2 {
        assert!(ask(&mut begun).await.starts_with("http/1.1 200"));
    }
    begun.write_all(b"GET /").await.unwrap();
    ended(begun).await;
}

#[tokio::test]
async fn known_clients_leave_room_for_strangers_and_administrators() {
    let limits = Limits { connections: 8, strangers: 4, strangers_a_peer: 4, ..Limits::default() };
    let (_house, authority, listening) = start(limits).await;
    let address = listening.address();
    let somebody = Some(("somebody", "people"));
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(address, &authority, somebody, b"http/1.1").await;
        assert!(ask(&mut stream).await.starts_with("http/1.1 403"));
        streams.push(stream);
    }
    let mut more = connect(address, &authority, somebody, b"http/1.1").await;
    let refused = ask(&mut more).await;
    assert!(refused.starts_with("http/1.1 429") && refused.contains("\nretry-after: 1\r"), "{refused}");
    assert_eq!(nodes(address, authority.client_config(ADMIN), false).await.unwrap(), 200);
    assert_eq!(nodes(address, authority.client_config(None), false).await.unwrap(), 401);
    // A stream that goes leaves its place to the next.
    drop(streams.pop());
    let again = async {
        while !ask(&mut more).await.starts_with("http/1.1 403") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, again).await.expect("there is room again");
}

#[tokio::test]
async fn a_connection_is_one_descriptor() {
    let (_house, authority, listening) = start(Limits::default()).await;
    let mut stream = connect(listening.address(), &authority, ADMIN, b"http/1.1").await;
    assert!(ask(&mut stream).await.starts_with("http/1.1 200"));
    let here = stream.get_ref().0.local_addr().unwrap().port();
    let ports = (format!(":{:04X}", listening.address().port()), format!(":{here:04X}"));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let inode = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_it = columns[1].ends_with(&ports.0) && columns[2].ends_with(&ports.1);
        is_it.then(|| columns[9].to_owned())
    });
    let socket = format!("socket:[{}]", inode.unwrap());
    let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let same = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    assert_eq!(same.filter(|link| link.as_os_str() == socket.as_str()).count(), 1);
}
