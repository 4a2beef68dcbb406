//! The ways through the API: to pods, services and logs, while hosts behind them die.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Request;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::house::{House, admin, body_of, text};
use crate::tls::Authority;

/// Answers one request on a connection with the request itself.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let head = format!("HTTP/1.1 200 OK\r\nX-Backend: yes\r\nContent-Length: {}\r\n\r\n", request.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&request).await;
    let _ = stream.flush().await;
    let _ = stream.read(&mut [0]).await;
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A backend that answers.
async fn alive() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    address
}

/// A backend that takes connections and breaks them.
async fn broken() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    address
}

/// A backend whose host is frozen: connections stand, nothing ever comes.
async fn frozen() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

async fn with_service(backends: Vec<SocketAddr>) -> House {
    let house = House::new().await;
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "web", "port": 80}, {"name": "more", "port": 81}]}});
    house.ask("POST", "/api/v1/namespaces/default/services", Some(service)).await;
    *house.backends.addresses.lock().unwrap() = backends;
    house
}

const SERVICE: &str = "/api/v1/namespaces/default/services/s:web/proxy";

#[tokio::test]
async fn a_caller_sees_no_error_while_backends_die() {
    for other in [broken().await, frozen().await] {
        let house = with_service(vec![alive().await, other]).await;
        for n in 0..6 {
            let answer = house.get(&format!("{SERVICE}/x/y?n={n}")).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-backend"], "yes");
            let seen = text(answer).await;
            assert!(seen.starts_with(&format!("GET /x/y?n={n} HTTP/1.1\r\n")), "{seen}");
            assert!(seen.contains(&format!("x-forwarded-uri: {SERVICE}/x/y\r\n")), "{seen}");
        }
    }
}

#[tokio::test]
async fn what_may_not_be_asked_twice_is_asked_once() {
    let house = with_service(vec![alive().await, broken().await]).await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        let request = Request::post(format!("{SERVICE}/x")).body(body_of("hello")).unwrap();
        codes.push(house.server.handle(request, Some(admin())).await.status().as_u16());
    }
    codes.sort_unstable();
    assert_eq!(codes, [200, 503]);
}

#[tokio::test]
async fn ports_are_those_of_the_service_and_paths_end_in_a_slash() {
    let house = with_service(vec![alive().await]).await;
    let code =
        async |path: &str| house.get(&format!("/api/v1/namespaces/default/services/{path}")).await.status();
    assert_eq!(code("s:80/proxy/").await, 200);
    assert_eq!(code("s/proxy/").await, 503, "two ports, none named");
    assert_eq!(code("s:none/proxy/").await, 503);
    assert_eq!(code("absent/proxy/").await, 404);
    let moved = house.get(&format!("{SERVICE}?a=b")).await;
    assert_eq!(
        (moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()),
        (301, &*format!("{SERVICE}/?a=b"))
    );
    *house.backends.addresses.lock().unwrap() = Vec::new();
    assert_eq!(code("s:80/proxy/").await, 503, "no backend");
}

/// A pod on a node, with an address.
async fn with_pod(house: &House) {
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}]}});
    house.ask("POST", pods, Some(pod)).await;
    let status = json!({"status": {"podIP": "127.0.0.1"}});
    let (code, answer) = house.ask("PATCH", &format!("{pods}/p/status"), Some(status)).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn a_pod_is_reached_unless_its_host_is_silent() {
    let house = House::new().await;
    with_pod(&house).await;
    let port = alive().await.port();
    let path = format!("/api/v1/namespaces/default/pods/p:{port}/proxy/hello");
    assert!(text(house.get(&path).await).await.starts_with("GET /hello HTTP/1.1\r\n"));
    house.backends.silent.lock().unwrap().insert("n1".into());
    assert_eq!(house.get(&path).await.status(), 503);
}

#[tokio::test]
async fn logs_come_from_the_agent_of_the_pods_host() {
    let authority = Authority::new();
    let agent = TlsAcceptor::from(Arc::new(authority.server_config(true)));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = agent.accept(stream).await {
                tokio::spawn(echo(stream));
            }
        }
    });
    let house = House::with_agents(authority.client_config(Some(("kube-apiserver", "system:masters")))).await;
    with_pod(&house).await;
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    house.ask("POST", "/api/v1/nodes", Some(node)).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    house.ask("PATCH", "/api/v1/nodes/n1/status", Some(status)).await;

    let logs = "/api/v1/namespaces/default/pods/p/log";
    let answer = text(house.get(&format!("{logs}?container=a&tailLines=3&follow=true")).await).await;
    assert!(
        answer.starts_with("GET /containerLogs/default/p/a?tailLines=3&follow=true HTTP/1.1"),
        "{answer}"
    );
    assert_eq!(house.get(&format!("{logs}?container=b")).await.status(), 400);
    house.backends.silent.lock().unwrap().insert("n1".into());
    assert_eq!(house.get(logs).await.status(), 503);
}

#[tokio::test]
async fn no_proxy_leads_to_what_a_host_keeps_to_itself() {
    let house = House::new().await;
    with_pod(&house).await;
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    house.ask("POST", "/api/v1/nodes", Some(node)).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    house.ask("PATCH", "/api/v1/nodes/n1/status", Some(status)).await;
    let port = alive().await.port();
    let pod = format!("/api/v1/namespaces/default/pods/p:{port}/proxy/");
    let node = format!("/api/v1/nodes/n1:{port}/proxy/");
    for path in [&pod, &node] {
        assert_eq!(house.get(path).await.status(), 200, "{path}");
    }
    house.backends.refused.lock().unwrap().insert(Ipv4Addr::LOCALHOST.into());
    let log = "/api/v1/namespaces/default/pods/p/log".to_owned();
    for path in [&pod, &node, &log] {
        let answer = house.get(path).await;
        assert_eq!(answer.status(), 400, "{path}");
        assert!(text(answer).await.contains("address not allowed"), "{path}");
    }
}

#[tokio::test]
async fn no_backend_hears_from_a_client_who_it_is() {
    let house = with_service(vec![alive().await]).await;
    with_pod(&house).await;
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    house.ask("POST", "/api/v1/nodes", Some(node)).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    house.ask("PATCH", "/api/v1/nodes/n1/status", Some(status)).await;
    let port = alive().await.port();
    for (path, upgraded) in [
        (format!("{SERVICE}/x"), false),
        (format!("{SERVICE}/x"), true),
        (format!("/api/v1/namespaces/default/pods/p:{port}/proxy/x"), false),
        (format!("/api/v1/namespaces/default/pods/p:{port}/proxy/x"), true),
        (format!("/api/v1/nodes/n1:{port}/proxy/x"), false),
        (format!("/api/v1/nodes/n1:{port}/proxy/x"), true),
    ] {
        let mut request = Request::get(&path)
            .header("x-remote-user", "root")
            .header("X-Remote-Group", "system:masters")
            .header("x-remote-uid", "0")
            .header("x-remote-extra-scopes", "all")
            .header("x-kept", "yes");
        if upgraded {
            request = request.header("connection", "Upgrade").header("upgrade", "websocket");
        }
        let answer = house.server.handle(request.body(body_of("")).unwrap(), Some(admin())).await;
        let heard = text(answer).await;
        assert!(heard.contains("x-kept: yes"), "{path} {upgraded}: {heard}");
        assert_eq!(heard.contains("upgrade: websocket"), upgraded, "{heard}");
        assert!(!heard.to_lowercase().contains("x-remote-"), "{path} {upgraded}: {heard}");
    }
}
