//! What nodes and pods use: asked of the hosts' agents, unless another server stands for that.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use serde_json::{Value, json};
use server::UserInfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::house::{House, admin, body_of, text};
use crate::tls::Authority;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// An agent of a host whose container uses half a processor, and whose machine uses two. It counts how often it is asked.
async fn agent(authority: &Authority) -> (SocketAddr, Arc<AtomicU64>) {
    let tls = TlsAcceptor::from(Arc::new(authority.server_config(true)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /metrics/resource HTTP/1.1\r\n"));
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let at = 1_800_000_000_000 + turn * 10_000;
            let of = "{container=\"c\",namespace=\"default\",pod=\"p\"}";
            let body = format!(
                "node_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 1048576 {at}\n\
                 container_cpu_usage_seconds_total{of} {} {at}\ncontainer_memory_working_set_bytes{of} 2048 {at}\n",
                turn * 20,
                turn * 5,
            );
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

/// An agent that begins to answer, and ends no answer.
async fn hanging_agent(authority: &Authority) -> SocketAddr {
    let tls = TlsAcceptor::from(Arc::new(authority.server_config(true)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await;
            open.push(stream);
        }
    });
    address
}

async fn house() -> (House, Arc<AtomicU64>) {
    let authority = Authority::new();
    house_of(&authority).await
}

async fn house_of(authority: &Authority) -> (House, Arc<AtomicU64>) {
    let (address, asked) = agent(authority).await;
    let house = House::with_agents(authority.client_config(Some(("kube-apiserver", "system:masters")))).await;
    let made = async |path: &str, object: Value| {
        let (code, answer) = house.ask("POST", path, Some(object)).await;
        assert_eq!(code, 201, "{answer}");
    };
    for node in ["n1", "silent"] {
        let object =
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node, "labels": {"a": node}}});
        made("/api/v1/nodes", object).await;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
        house.ask("PATCH", &format!("/api/v1/nodes/{node}/status"), Some(status)).await;
    }
    house.backends.silent.lock().unwrap().insert("silent".into());
    for (pod, node) in [("p", Some("n1")), ("other", Some("n1")), ("away", Some("silent")), ("nowhere", None)]
    {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": pod, "labels": {"app": pod}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        made("/api/v1/namespaces/default/pods", pod).await;
    }
    (house, asked)
}

#[tokio::test]
async fn what_is_used_is_the_difference_of_two_looks() {
    let (house, asked) = house().await;
    let (code, list) = house.ask("GET", &format!("{METRICS}/pods"), None).await;
    assert_eq!((code, &list["kind"]), (200, &json!("PodMetricsList")), "{list}");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "of the others nothing is known: {list}");
    let item = &items[0];
    assert_eq!((&item["metadata"]["name"], &item["metadata"]["namespace"]), (&json!("p"), &json!("default")));
    assert_eq!((&item["window"], &item["timestamp"]), (&json!("10s"), &json!("2027-01-15T08:00:10Z")));
    let usage = json!([{"name": "c", "usage": {"cpu": "500000000n", "memory": "2Ki"}}]);
    assert_eq!(item["containers"], usage);
    let (_, node) = house.ask("GET", &format!("{METRICS}/nodes/n1"), None).await;
    assert_eq!(node["usage"], json!({"cpu": "2000000000n", "memory": "1024Ki"}), "{node}");
    assert_eq!((&node["kind"], &node["metadata"]["labels"]["a"]), (&json!("NodeMetrics"), &json!("n1")));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what was just seen isn't looked at again");

    for (path, count) in [
        ("namespaces/default/pods", 1),
        ("namespaces/other/pods", 0),
        ("pods?labelSelector=app%3Dp", 1),
        ("pods?labelSelector=app%3Dother", 0),
        ("pods?fieldSelector=metadata.name%3Dp", 1),
        ("nodes", 1),
    ] {
        let (code, list) = house.ask("GET", &format!("{METRICS}/{path}"), None).await;
        assert_eq!((code, list["items"].as_array().unwrap().len()), (200, count), "{path}: {list}");
    }
    for (method, path, code) in [
        ("GET", "nodes/silent", 404),
        ("GET", "namespaces/default/pods/away", 404),
        ("GET", "namespaces/default/pods/p", 200),
        ("GET", "pods/p", 404),
        ("GET", "services", 404),
        ("GET", "pods?watch=1", 405),
        ("GET", "pods?fieldSelector=spec.nodeName%3Dn1", 400),
        ("GET", "pods?fieldSelector=metadata.name%3Dp,spec.nodeName%3Dn1", 400),
        ("DELETE", "nodes/n1", 405),
    ] {
        assert_eq!(house.ask(method, &format!("{METRICS}/{path}"), None).await.0, code, "{method} {path}");
    }
    let nobody = UserInfo::new("jane", ["people"]);
    assert_eq!(house.ask_as(nobody, "GET", &format!("{METRICS}/pods"), None).await.0, 403);
}

#[tokio::test]
async fn a_host_that_ends_no_answer_holds_nobody_up_for_long() {
    let authority = Authority::new();
    let (house, _) = house_of(&authority).await;
    let address = hanging_agent(&authority).await;
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "hanging"}});
    assert_eq!(house.ask("POST", "/api/v1/nodes", Some(node)).await.0, 201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    assert_eq!(house.ask("PATCH", "/api/v1/nodes/hanging/status", Some(status)).await.0, 200);
    let (code, list) = house.ask("GET", &format!("{METRICS}/nodes"), None).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1), "{list}");
}

#[tokio::test]
async fn another_server_may_stand_for_it() {
    let (house, asked) = house().await;
    let (_, groups) = house.ask("GET", "/apis", None).await;
    let of = |groups: &Value| {
        groups["groups"].as_array().unwrap().iter().filter(|group| group["name"] == "metrics.k8s.io").count()
    };
    assert_eq!(of(&groups), 1);
    let (_, resources) = house.ask("GET", METRICS, None).await;
    assert_eq!(resources["resources"][1]["kind"], "PodMetrics");
    let (_, group) = house.ask("GET", "/apis/metrics.k8s.io", None).await;
    assert_eq!(group["preferredVersion"]["version"], "v1beta1");
    let service = |version: &str| {
        json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.metrics.k8s.io")},
        "spec": {"group": "metrics.k8s.io", "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"name": "metrics-server", "namespace": "kube-system"}}})
    };
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    assert_eq!(house.ask("POST", path, Some(service("v1beta1"))).await.0, 201);
    assert_eq!(house.ask("GET", &format!("{METRICS}/nodes"), None).await.0, 503, "it doesn't answer");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let (_, groups) = house.ask("GET", "/apis", None).await;
    assert_eq!(of(&groups), 0, "{groups}");

    // One of another version stands beside it.
    assert_eq!(house.ask("DELETE", &format!("{path}/v1beta1.metrics.k8s.io"), None).await.0, 200);
    assert_eq!(house.ask("POST", path, Some(service("v2"))).await.0, 201);
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::get("/apis").header("accept", aggregated);
    let request = request.body(body_of(String::new())).unwrap();
    let answer = house.server.handle(request, Some(admin())).await;
    let answer: Value = serde_json::from_str(&text(answer).await).unwrap();
    let of = |group: &&Value| group["metadata"]["name"] == "metrics.k8s.io";
    let found: Vec<&Value> = answer["items"].as_array().unwrap().iter().filter(of).collect();
    let versions = |group: &Value| group["versions"].as_array().unwrap().len();
    assert_eq!(found.iter().map(|group| versions(group)).collect::<Vec<_>>(), [2], "{found:?}");
}
