//! Watches and logs over WebSockets, as browsers read them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::house::House;
use crate::tls::Authority;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Place {
    house: House,
    authority: Authority,
    listening: server::Listening,
}

async fn place() -> Place {
    let (house, authority) = (House::new().await, Authority::new());
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    Place { house, authority, listening }
}

impl Place {
    /// Asks for a WebSocket with what may be a line for its protocol: the head of the answer, and the connection.
    async fn ask(&self, path: &str, protocol: &str) -> (String, TlsStream<TcpStream>) {
        let tls = self.authority.client_config(Some(("kubernetes-admin", "system:masters")));
        let address = self.listening.address();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: Upgrade\r\nupgrade: websocket\r\norigin: https://here\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }

    async fn socket(&self, path: &str, protocol: &str) -> (String, WebSocketStream<TlsStream<TcpStream>>) {
        let (head, stream) = self.ask(path, protocol).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The key of RFC 6455, and the answer that it gives to it.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        (head, WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }
}

/// The next message that isn't a question whether somebody is there.
async fn next(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Option<Message> {
    loop {
        let said =
            tokio::time::timeout(Duration::from_secs(60), socket.next()).await.expect("something is said");
        match said {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(message)) => return Some(message),
        }
    }
}

#[tokio::test]
async fn a_watch_sends_an_event_a_message() {
    let place = place().await;
    let map = |name: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
    for name in ["a", "b"] {
        assert_eq!(place.house.ask("POST", MAPS, Some(map(name))).await.0, 201);
    }
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name!%3Dkube-root-ca.crt");
    let (_, mut socket) = place.socket(&path, "").await;
    place.house.ask("DELETE", &format!("{MAPS}/a"), None).await;
    for expected in [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")] {
        let Some(Message::Text(text)) = next(&mut socket).await else { panic!("events are texts") };
        let event: Value = serde_json::from_str(&text).unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap();
        assert_eq!((event["type"].as_str().unwrap(), name), expected);
    }
    place.house.server.close();
    assert_eq!(next(&mut socket).await, None, "it ends with the server");
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over_and_says_what_it_can_not() {
    let place = place().await;
    let (head, mut socket) =
        place.socket(&format!("{MAPS}?watch=1&timeoutSeconds=1"), "sec-websocket-protocol: mine\r\n").await;
    assert!(head.contains("sec-websocket-protocol: mine\r\n"), "{head}");
    while next(&mut socket).await.is_some() {}
    let (head, _) = place.ask(&format!("{MAPS}?watch=1&labelSelector=-"), "").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let (head, _) =
        place.ask(&format!("{MAPS}?watch=1"), "accept: application/vnd.kubernetes.protobuf\r\n").await;
    assert!(head.starts_with("HTTP/1.1 406 "), "{head}");
}

#[tokio::test]
async fn a_log_is_read_in_the_form_that_the_client_offers() {
    let place = place().await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    assert_eq!(place.house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await.0, 201);
    let path = "/api/v1/namespaces/default/pods/p/log";
    for (offered, chosen, first) in [
        ("", None, Message::Binary(Default::default())),
        (
            "sec-websocket-protocol: x, binary.k8s.io\r\n",
            Some("binary.k8s.io"),
            Message::Binary(Default::default()),
        ),
        (
            "sec-websocket-protocol: base64.binary.k8s.io\r\n",
            Some("base64.binary.k8s.io"),
            Message::Text(Default::default()),
        ),
    ] {
        let (head, mut socket) = place.socket(path, offered).await;
        let line = chosen.map(|chosen| format!("sec-websocket-protocol: {chosen}\r\n"));
        assert_eq!(head.contains("sec-websocket-protocol"), line.is_some(), "{head}");
        assert!(line.is_none_or(|line| head.contains(&line)), "{head}");
        assert_eq!(next(&mut socket).await, Some(first), "it says at once that it is there");
        assert_eq!(next(&mut socket).await, None, "a pod that is nowhere has said nothing");
    }
    let (head, _) = place.ask(path, "sec-websocket-protocol: x\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}
