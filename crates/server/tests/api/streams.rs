//! Streams into pods as far as the API server has a part in them: who may, to whom, and bytes that go through unread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::auditing::Recorder;
use crate::hooks::{Hook, patched};
use crate::house::House;
use crate::tls::Authority;

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec";

/// Reads the head of a message.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// An agent that changes the protocol and says all twice, unless it is asked for what it hasn't. It tells what it was
/// asked, and when a stream is over.
async fn agent(authority: &Authority) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let tls = TlsAcceptor::from(Arc::new(authority.server_config(true)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let tell = tell.clone();
            tokio::spawn(async move {
                let asked = head(&mut stream).await;
                let refused = asked.contains("command=refused");
                tell.send(asked).unwrap();
                if refused {
                    let answer = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 9\r\n\r\nnot found";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    return;
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                              sec-websocket-protocol: v5.channel.k8s.io\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut byte = [0];
                while matches!(stream.read(&mut byte).await, Ok(1)) {
                    stream.write_all(&[byte[0], byte[0]]).await.unwrap();
                }
                tell.send("over".into()).unwrap();
            });
        }
    });
    (address, told)
}

struct Place {
    house: House,
    authority: Authority,
    told: mpsc::UnboundedReceiver<String>,
    listening: server::Listening,
}

async fn place() -> Place {
    let authority = Authority::new();
    let tls = authority.client_config(Some(AGENTS_CLIENT));
    place_in(House::with_agents(tls).await, authority).await
}

/// Likewise, telling a recorder of what requests did.
async fn recorded_place(recorder: &Arc<Recorder>) -> Place {
    let authority = Authority::new();
    let tls = authority.client_config(Some(AGENTS_CLIENT));
    place_in(House::audited(tls, recorder.auditor("- {level: Metadata}")).await, authority).await
}

async fn place_in(house: House, authority: Authority) -> Place {
    let (address, told) = agent(&authority).await;
    let made = async |path: &str, object: Value| {
        let (code, answer) = house.ask("POST", path, Some(object)).await;
        assert_eq!(code, 201, "{answer}");
    };
    let pod = |name: &str, node: Option<&str>| {
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "a", "image": "i"}]}})
    };
    made("/api/v1/nodes", json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}})).await;
    made("/api/v1/namespaces/default/pods", pod("p", Some("n1"))).await;
    made("/api/v1/namespaces/default/pods", pod("nowhere", None)).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    house.ask("PATCH", "/api/v1/nodes/n1/status", Some(status)).await;
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    Place { house, authority, told, listening }
}

impl Place {
    /// Asks for another protocol: the head of the answer, and the connection.
    async fn upgrade(&self, user: (&str, &str), path: &str) -> (String, TlsStream<TcpStream>) {
        let tls = TlsConnector::from(Arc::new(self.authority.client_config(Some(user))));
        let address = self.listening.address();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = tls.connect(ServerName::IpAddress(address.ip().into()), stream).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\nauthorization: Bearer secret\r\n\
             sec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        (head(&mut stream).await, stream)
    }

    async fn code(&self, user: (&str, &str), path: &str) -> String {
        let (head, _) = self.upgrade(user, path).await;
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

const ADMIN: (&str, &str) = ("kubernetes-admin", "system:masters");
/// How the API presents itself to agents.
const AGENTS_CLIENT: (&str, &str) = ("kube-apiserver", "system:masters");
const JANE: (&str, &str) = ("jane", "people");

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it happens at all")
}

#[tokio::test]
async fn the_audit_tells_when_a_stream_began_and_when_it_was_over() {
    let recorder = Arc::new(Recorder::default());
    let mut place = recorded_place(&recorder).await;
    recorder.drain();
    let (answer, stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    place.told.recv().await.unwrap();
    let stages = |events: &[Value]| -> Vec<(String, Value)> {
        let stage = |event: &Value| event["stage"].as_str().unwrap().to_owned();
        events.iter().map(|event| (stage(event), event["responseStatus"]["code"].clone())).collect()
    };
    let begun = recorder.drain();
    let expected = [("RequestReceived".to_owned(), Value::Null), ("ResponseStarted".to_owned(), json!(101))];
    assert_eq!(stages(&begun), expected);
    assert_eq!((&begun[1]["objectRef"]["subresource"], &begun[1]["verb"]), (&json!("exec"), &json!("get")));
    assert_eq!(begun[1]["sourceIPs"], json!(["127.0.0.1"]));
    drop(stream);
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over");
    let over = in_time(recorder.next()).await;
    assert_eq!(stages(&[over]), [("ResponseComplete".to_owned(), json!(101))]);
}

#[tokio::test]
async fn bytes_go_both_ways_until_one_side_ends() {
    let mut place = place().await;
    let (answer, mut stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdin=true&stdout=1")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n"), "{answer}");
    let asked = place.told.recv().await.unwrap();
    assert!(asked.starts_with("GET /exec/default/p/a?input=1&output=1&command=sh HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("sec-websocket-key: a2V5\r\n") && !asked.contains("secret"), "{asked}");
    stream.write_all(b"hi").await.unwrap();
    let mut said = [0; 4];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hhii");
    drop(stream);
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over", "who is gone is gone for the agent too");

    // Streams end with their listener, and when it hangs up.
    let (_, mut stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await;
    place.told.recv().await.unwrap();
    place.listening.hang_up();
    in_time(stream.read(&mut [0])).await.ok();
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over");
    let (_, mut stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await;
    place.told.recv().await.unwrap();
    let tls = Arc::new(place.authority.server_config(false));
    let other = place.house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    drop(std::mem::replace(&mut place.listening, other));
    in_time(stream.read(&mut [0])).await.ok();
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over");
    // And with the server.
    let (_, _stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await;
    place.told.recv().await.unwrap();
    place.house.server.close();
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over");
}

#[tokio::test]
async fn a_stream_ends_when_its_host_stays_silent() {
    let mut place = place().await;
    let (_, mut stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await;
    place.told.recv().await.unwrap();
    place.house.backends.silent.lock().unwrap().insert("n1".into());
    assert_eq!(in_time(stream.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(in_time(place.told.recv()).await.unwrap(), "over");
    assert_eq!(place.code(ADMIN, &format!("{EXEC}?command=sh&stdout=1")).await, "503");
}

#[tokio::test]
async fn who_may_only_read_begins_no_stream() {
    let mut place = place().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = |verbs: &[&str]| {
        json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r"},
            "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs}]})
    };
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let path = format!("{EXEC}?command=sh&stdout=1");
    assert_eq!(place.code(JANE, &path).await, "403");
    place.house.ask("POST", &format!("{rbac}/roles"), Some(role(&["get"]))).await;
    place.house.ask("POST", &format!("{rbac}/rolebindings"), Some(binding)).await;
    assert_eq!(place.code(JANE, &path).await, "403", "a GET changes something too");
    place.house.ask("PUT", &format!("{rbac}/roles/r"), Some(role(&["create", "get"]))).await;
    assert_eq!(place.code(JANE, &path).await, "101");
    assert!(place.told.recv().await.is_some());
    let other = "/api/v1/namespaces/default/pods/p/portforward?ports=80";
    assert_eq!(place.code(JANE, other).await, "403");
    assert_eq!(place.code(JANE, "/api/v1/nodes/n1/proxy/exec/default/p/a?command=sh").await, "403");
}

#[tokio::test]
async fn what_can_not_be_is_refused_by_a_status() {
    let place = place().await;
    for (path, expected) in [
        (EXEC, "Upgrade request required"),
        ("/api/v1/namespaces/default/pods/p/attach", "Upgrade request required"),
        ("/api/v1/namespaces/default/pods/p/portforward", "Upgrade request required"),
    ] {
        let (code, answer) = place.house.ask("POST", path, None).await;
        assert_eq!((code, answer["message"].as_str()), (400, Some(expected)));
    }
    let refused = async |path: &str| {
        let (head, mut stream) = place.upgrade(ADMIN, path).await;
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let status: Value = serde_json::from_slice(&body).unwrap();
        (status["code"].as_u64().unwrap(), status["message"].as_str().unwrap().to_owned())
    };
    let exec =
        |name: &str, query: &str| format!("/api/v1/namespaces/default/pods/{name}/exec?command=sh{query}");
    assert_eq!(refused(&exec("absent", "")).await.0, 404);
    assert_eq!(refused(&exec("p", "&container=b")).await, (400, "container b is not valid for pod p".into()));
    assert_eq!(
        refused(&exec("nowhere", "")).await,
        (400, "pod nowhere does not have a host assigned".into())
    );
    let answer = refused(&format!("{EXEC}?command=refused")).await;
    assert_eq!(answer, (500, "Internal error occurred: not found".into()));
}

#[tokio::test]
async fn webhooks_and_policies_have_a_say_in_streams() {
    let mut place = place().await;
    let hook =
        Hook::new(|_| patched(json!([{"op": "replace", "path": "/command", "value": ["other", "x"]}]))).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]);
    let configuration = json!({"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "m"}, "webhooks": [{"name": "m.example.com", "admissionReviewVersions": ["v1"],
        "sideEffects": "None", "clientConfig": hook.config(), "rules": rules}]});
    let path = format!("{group}/mutatingwebhookconfigurations");
    assert_eq!(place.house.ask("POST", &path, Some(configuration)).await.0, 201);
    let (answer, _stream) = place.upgrade(ADMIN, &format!("{EXEC}?command=sh&stdin=true")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let asked = place.told.recv().await.unwrap();
    assert!(
        asked.starts_with("GET /exec/default/p/a?input=1&command=other&command=x HTTP/1.1\r\n"),
        "{asked}"
    );
    assert_eq!(
        hook.last()["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "command": ["sh"]})
    );
    // Those who judge see what was made of it.
    let policy = json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "object.command[0] == 'sh' || object.stdin == false"}]}});
    let path = format!("{group}/validatingadmissionpolicies");
    assert_eq!(place.house.ask("POST", &path, Some(policy)).await.0, 201);
    let binding = json!({"kind": "ValidatingAdmissionPolicyBinding",
        "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "p"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let path = format!("{group}/validatingadmissionpolicybindings");
    assert_eq!(place.house.ask("POST", &path, Some(binding)).await.0, 201);
    assert_eq!(place.code(ADMIN, &format!("{EXEC}?command=sh&stdin=true")).await, "422");
    assert_eq!(place.code(ADMIN, "/api/v1/namespaces/default/pods/p/portforward?ports=80").await, "101");
}
