//! The client against a server of its own.

use crate::test_server::{Asked, TestServer};
use crate::{Applied, AskFailure, Client, Content, Discovery, Error, Kubeconfig, WatchKind, apply};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn not_found(what: &str) -> (u16, String) {
    let message = format!("{what} not found");
    (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": message}).to_string())
}

fn discovery(ask: &Asked) -> Option<(u16, String)> {
    let configmap = json!({"resource": "configmaps", "responseKind": {"kind": "ConfigMap"},
        "scope": "Namespaced", "singularResource": "configmap"});
    let body = match ask.line.as_str() {
        "GET /api" => json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [configmap]}]}]}),
        "GET /apis" => json!({"kind": "APIGroupDiscoveryList", "items": []}),
        _ => return None,
    };
    Some((200, body.to_string()))
}

#[tokio::test]
async fn connections_are_used_again_and_fresh_ones_are_not() {
    let server = TestServer::start(|_| (200, "{}".into())).await;
    let client = server.client();
    for _ in 0..3 {
        client.get("/api").await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        assert!(client.fresh("/api", Duration::from_secs(10)).await.unwrap().is_success());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 4);
    let (patch, patience) = (json!({"data": {"a": "1"}}), Duration::from_secs(10));
    let answer = client.fresh_patch("/api/x", Content::MergePatch, &patch, patience).await.unwrap();
    assert!(answer.is_success());
    assert_eq!(server.connections.load(Ordering::SeqCst), 5);
    let asked = server.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("PATCH /api/x", r#"{"data":{"a":"1"}}"#));
}

#[tokio::test]
async fn errors_say_what_happened() {
    let server = TestServer::start(|_| not_found("pods \"x\"")).await;
    let error = server.client().get("/api/v1/namespaces/default/pods/x").await.unwrap_err();
    assert_eq!(error.to_string(), "Error from server (NotFound): pods \"x\" not found");
    assert!(error.is_not_found());
    assert_eq!(server.client().fresh("/x", Duration::from_secs(10)).await.unwrap().code, 404);

    let stranger = TestServer::start(|_| (200, "{}".into())).await;
    let mistaken = Kubeconfig {
        certificate_authority: stranger.kubeconfig.certificate_authority.clone(),
        ..server.kubeconfig.clone()
    };
    let mistaken = Client::new(&mistaken).unwrap();
    assert!(matches!(mistaken.get("/api").await, Err(Error::Tls { .. })));
    assert!(matches!(mistaken.fresh("/api", Duration::from_secs(10)).await, Err(AskFailure::Tls(_))));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let silent = Client::new(&server.kubeconfig.with_server(address.clone())).unwrap();
    let ask = silent.fresh("/api", Duration::from_millis(20)).await;
    assert_eq!(ask, Err(AskFailure::Timeout(Duration::from_millis(20))));
    drop(listener);
    assert!(matches!(silent.fresh("/api", Duration::from_secs(10)).await, Err(AskFailure::Connect(_))));
    let error = silent.get("/api").await.unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to the server 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_watch_reads_events_until_its_end() {
    let server = TestServer::start(|ask| {
        assert_eq!(ask.line, "GET /api/v1/pods?resourceVersion=5&watch=true");
        let event = |kind: &str, rv: u32| json!({"type": kind, "object": {"rv": rv}}).to_string();
        (200, format!("{}\n{}\n", event("ADDED", 6), event("BOOKMARK", 9)))
    })
    .await;
    let mut watch = server.client().watch("/api/v1/pods?resourceVersion=5", None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().kind, WatchKind::Added);
    assert_eq!(watch.next().await.unwrap().unwrap().object, json!({"rv": 9}));
    assert_eq!(watch.next().await.unwrap(), None);
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

#[tokio::test]
async fn apply_creates_changes_and_leaves_alone() {
    let stored: std::sync::Arc<std::sync::Mutex<Option<Value>>> = Default::default();
    let inside = stored.clone();
    let server = TestServer::start(move |ask| {
        if let Some(answer) = discovery(ask) {
            return answer;
        }
        let mut stored = inside.lock().unwrap();
        match ask.line.split(' ').next().unwrap() {
            "POST" => {
                assert!(ask.line.contains("fieldValidation=Strict"), "{}", ask.line);
                let mut object: Value = serde_json::from_str(&ask.body).unwrap();
                object["data"]["theirs"] = json!("1");
                *stored = Some(object.clone());
                (201, object.to_string())
            }
            "PATCH" => {
                assert_eq!(ask.content, "application/merge-patch+json");
                (200, stored.as_ref().unwrap().to_string())
            }
            _ if ask.line.starts_with("GET /openapi") => not_found("openapi"),
            _ => match stored.as_ref() {
                Some(object) => (200, object.to_string()),
                None => not_found("configmaps \"c\""),
            },
        }
    })
    .await;
    let client = server.client();
    let discovery = Discovery::ask(&client).await.unwrap();
    let brought =
        async |data| -> Applied { apply(&client, &discovery, &config_map(data), "work").await.unwrap() };
    let first = brought(json!({"a": "1", "b": "2"})).await;
    assert_eq!((first.name.as_str(), first.outcome), ("configmap/c", "created"));
    assert_eq!(brought(json!({"a": "1", "b": "2"})).await.outcome, "unchanged");
    assert_eq!(brought(json!({"a": "3"})).await.outcome, "configured");
    let asked = server.asked.lock().unwrap();
    let patch: Value = serde_json::from_str(&asked.last().unwrap().body).unwrap();
    assert_eq!(patch["data"], json!({"a": "3", "b": null}), "theirs stays");
    assert_eq!(patch["metadata"].as_object().unwrap().len(), 1);
    let applied =
        patch.pointer("/metadata/annotations").unwrap().as_object().unwrap().values().next().unwrap();
    assert_eq!(
        applied.as_str().unwrap(),
        "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"3\"},\"kind\":\"ConfigMap\",\
         \"metadata\":{\"annotations\":{},\"name\":\"c\",\"namespace\":\"work\"}}\n"
    );
}

#[tokio::test]
async fn apply_of_nonsense_is_an_error() {
    let server = TestServer::start(|ask| discovery(ask).unwrap_or_else(|| not_found("x"))).await;
    let client = server.client();
    let discovery = Discovery::ask(&client).await.unwrap();
    for (object, says) in [
        (json!({"apiVersion": "v1", "kind": "Foo"}), "no matches for kind \"Foo\" in version \"v1\""),
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": 5}), "apply needs metadata.name"),
        (json!({"apiVersion": "v1", "kind": "ConfigMap"}), "apply needs metadata.name"),
        (json!(5), "no matches for kind"),
    ] {
        let error = apply(&client, &discovery, &object, "work").await.unwrap_err().to_string();
        assert!(error.contains(says), "{object}: {error}");
    }
}

/// A server that stops reading, as one does that has had enough.
#[tokio::test]
async fn a_request_that_is_too_large_is_said_to_be() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client =
        Client::new(&Kubeconfig::anonymous(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut some = [0; 100];
            drop(tokio::io::AsyncReadExt::read(&mut tcp, &mut some).await);
        }
    });
    let create = async |bytes: usize| {
        let object = json!({"data": "x".repeat(bytes)});
        client.create("/api/v1/namespaces/default/configmaps", &object).await.unwrap_err()
    };
    let error = create(5 << 20).await.to_string();
    assert!(error.contains("has 5242891 bytes, and a server takes 3145728 at most"), "{error}");
    assert!(matches!(create(1 << 20).await, Error::Broken { .. }), "for another reason");
}

#[tokio::test]
async fn a_bad_certificate_is_said_to_be_bad_and_where() {
    let server = TestServer::start(|_| (200, "{}".into())).await;
    type Spoil = fn(&mut Kubeconfig);
    let cases: [(Spoil, &str); 4] = [
        (|k| k.certificate_authority = b"hello".to_vec(), "no certificate in its certificate-authority"),
        (|k| k.certificate_authority.clear(), "has no certificate-authority"),
        (
            |k| {
                k.certificate_authority =
                    b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n".to_vec();
            },
            "is not a certificate",
        ),
        (
            |k| (k.client_certificate, k.client_key) = (Some(b"hello".to_vec()), Some(b"hello".to_vec())),
            "no certificate in its client-certificate",
        ),
    ];
    for (spoil, says) in cases {
        let mut config = Kubeconfig { origin: "/home/me/config".into(), ..server.kubeconfig.clone() };
        spoil(&mut config);
        let error = Client::new(&config).err().unwrap().to_string();
        assert!(error.contains(says) && error.contains("/home/me/config"), "{error}");
    }
}
