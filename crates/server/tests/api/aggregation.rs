//! Aggregated APIs: another server answers for a group, in the name of who asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pki::{Authority, ClientAuth, LiveIdentity, Subject, Trust, Validity};
use serde_json::{Value, json};
use server::{FrontProxy, UserInfo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::house::{House, admin, body_of, text};
use crate::self_signed::self_signed;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.weather.example.com";

#[allow(clippy::disallowed_methods, reason = "certificates have a time")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The server of an aggregated API, whose certificate one authority signed and that believes another one's clients.
struct Extension {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
}

impl Extension {
    async fn start(authority: &Authority, clients: &Trust) -> Self {
        let subject = Subject { common_name: "weather".into(), organization: None };
        let name = "weather.default.svc".to_owned();
        let identity = authority.issue(&subject, &[name], &[], Validity::years(now(), 1)).unwrap();
        Self::showing(&identity, clients).await
    }

    /// Likewise, with a certificate of its own.
    async fn showing(identity: &pki::Identity, clients: &Trust) -> Self {
        let tls = identity.server_config(clients, ClientAuth::Required, &[b"http/1.1"]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, is_well) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let (tls, well) = (TlsAcceptor::from(tls), is_well.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, well) = (tls.clone(), well.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                    let client = UserInfo::of_certificate(&certificate).unwrap().user;
                    let answer = service_fn(move |request| {
                        let answer = answer(&client, &request, well.load(Ordering::SeqCst));
                        async move { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Extension { address, is_well }
    }
}

fn answer(client: &str, request: &Request<Incoming>, well: bool) -> Response<Full<Bytes>> {
    let all = |name: &str| -> Vec<&str> {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    };
    let body = match request.uri().path() {
        _ if !well => json!("broken"),
        "/apis/weather.example.com/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "weather.example.com/v1",
            "resources": [
                {"name": "storms", "singularName": "storm", "namespaced": true, "kind": "Storm",
                 "verbs": ["get", "list"], "shortNames": ["st"]},
                {"name": "storms/status", "singularName": "", "namespaced": true, "kind": "Storm", "verbs": ["get"]},
            ],
        }),
        "/openapi/v3" => json!({"paths": {"apis/weather.example.com/v1":
            {"serverRelativeURL": "/openapi/v3/apis/weather.example.com/v1?hash=1"}}}),
        "/openapi/v3/apis/weather.example.com/v1" => json!({"openapi": "3.0.0", "paths": {
            "/apis/weather.example.com/v1/storms": {"get": {"operationId": "listStorms"}}},
            "components": {"schemas": {"com.example.Storm": {"type": "object"}}}}),
        path => json!({
            "path": path, "query": request.uri().query(), "method": request.method().as_str(), "client": client,
            "user": all("x-remote-user"), "groups": all("x-remote-group"), "credentials": all("authorization"),
        }),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = http::StatusCode::from_u16(if well { 200 } else { 500 }).unwrap();
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

struct Weather {
    house: House,
    extension: Extension,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

fn api_service(bundle: Option<&str>) -> Value {
    let mut spec = json!({"group": "weather.example.com", "version": "v1", "groupPriorityMinimum": 100,
        "versionPriority": 100, "service": {"namespace": "default", "name": "weather"}});
    match bundle {
        Some(pem) => spec["caBundle"] = STANDARD.encode(pem).into(),
        None => spec["insecureSkipTLSVerify"] = true.into(),
    }
    json!({"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {"name": NAME}, "spec": spec})
}

async fn house(cluster: &Authority) -> House {
    let trust = cluster.trust().unwrap();
    let identity = LiveIdentity::new(cluster.front_proxy_identity(now()).unwrap()).unwrap();
    House::with_front_proxy(FrontProxy { identity, clients: trust.clone(), trust }).await
}

impl Weather {
    async fn new(insecure: bool) -> Self {
        let (cluster, other) =
            (Authority::create("cluster", now()).unwrap(), Authority::create("other", now()).unwrap());
        let house = house(&cluster).await;
        let extension = Extension::start(&other, &cluster.trust().unwrap()).await;
        house.backends.addresses.lock().unwrap().push(extension.address);
        let task = tokio::spawn(house.server.clone().aggregate());
        let (code, answer) = house
            .ask("POST", SERVICES, Some(api_service((!insecure).then_some(other.certificate_pem()))))
            .await;
        assert_eq!(code, 201, "{answer}");
        Weather { house, extension, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    async fn add_service(&self) {
        let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "weather"},
            "spec": {"ports": [{"port": 443}]}});
        self.house.ask("POST", "/api/v1/namespaces/default/services", Some(service)).await;
    }

    /// Waits until the condition gives that reason.
    async fn until(&self, reason: &str) -> Value {
        let wait = async {
            loop {
                let (_, object) = self.house.ask("GET", &format!("{SERVICES}/{NAME}"), None).await;
                let condition = object["status"]["conditions"][0].clone();
                if condition["reason"] == reason {
                    return condition;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never {reason}"))
    }
}

#[tokio::test]
async fn requests_go_to_the_server_of_the_group_in_the_name_of_who_asks() {
    let weather = Weather::new(false).await;
    let house = &weather.house;
    let storms = "/apis/weather.example.com/v1/namespaces/default/storms";
    assert_eq!(weather.until("ServiceNotFound").await["status"], "False");
    let (code, status) = house.ask("GET", storms, None).await;
    assert_eq!((code, status["reason"].as_str().unwrap()), (503, "ServiceUnavailable"));
    weather.add_service().await;
    assert_eq!(weather.until("Passed").await["status"], "True");

    let request = Request::get(format!("{storms}?limit=5"))
        .header("authorization", "Bearer secret")
        .header("x-remote-user", "root")
        .body(body_of(""))
        .unwrap();
    let answer = house.server.handle(request, Some(admin())).await;
    let seen: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(
        seen,
        json!({
            "path": storms, "query": "limit=5", "method": "GET", "client": "front-proxy-client",
            "user": ["admin"], "groups": ["system:masters", "system:authenticated"], "credentials": [],
        })
    );
    let (code, seen) = house.ask("DELETE", &format!("{storms}/big"), None).await;
    assert_eq!((code, seen["method"].as_str().unwrap()), (200, "DELETE"));

    // What somebody may is decided here, by what the path says.
    let jane = || UserInfo::new("jane", ["people"]);
    assert_eq!(house.ask_as(jane(), "GET", storms, None).await.0, 403);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r"},
        "rules": [{"verbs": ["list"], "apiGroups": ["weather.example.com"], "resources": ["storms"]}]});
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane"}]});
    house.ask("POST", &format!("{rbac}/roles"), Some(role)).await;
    house.ask("POST", &format!("{rbac}/rolebindings"), Some(binding)).await;
    assert_eq!(house.ask_as(jane(), "GET", storms, None).await.0, 200);
    assert_eq!(house.ask_as(jane(), "GET", &format!("{storms}/big"), None).await.0, 403);

    // A server that doesn't answer isn't available until it answers again.
    weather.extension.is_well.store(false, Ordering::SeqCst);
    let touched = json!({"metadata": {"labels": {"seen": "yes"}}});
    house.ask("PATCH", &format!("{SERVICES}/{NAME}"), Some(touched)).await;
    weather.until("FailedDiscoveryCheck").await;
    assert_eq!(house.ask("GET", storms, None).await.0, 503);
    weather.extension.is_well.store(true, Ordering::SeqCst);
    weather.until("Passed").await;
    assert_eq!(house.ask("GET", storms, None).await.0, 200);
}

#[tokio::test]
async fn discovery_and_openapi_tell_what_aggregated_apis_serve() {
    let weather = Weather::new(true).await;
    weather.add_service().await;
    weather.until("Passed").await;
    let house = &weather.house;
    let (_, groups) = house.ask("GET", "/apis", None).await;
    let names = groups["groups"].as_array().unwrap().iter().filter(|g| g["name"] == "weather.example.com");
    assert_eq!(names.count(), 1, "{groups}");
    let (code, group) = house.ask("GET", "/apis/weather.example.com", None).await;
    assert_eq!((code, group["preferredVersion"]["version"].as_str().unwrap()), (200, "v1"));
    let (_, list) = house.ask("GET", "/apis/weather.example.com/v1", None).await;
    assert_eq!(list["resources"][0]["name"], "storms");

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let discover = async |tag: &str| {
        let request = Request::get("/apis").header("accept", accept).header("if-none-match", tag);
        house.server.handle(request.body(body_of("")).unwrap(), Some(admin())).await
    };
    let answer = discover("").await;
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let all: Value = serde_json::from_str(&text(answer).await).unwrap();
    let found =
        all["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == "weather.example.com");
    assert_eq!(
        found.unwrap()["versions"],
        json!([{"version": "v1", "freshness": "Current", "resources": [{
            "resource": "storms", "responseKind": {"group": "", "version": "", "kind": "Storm"},
            "scope": "Namespaced", "singularResource": "storm", "verbs": ["get", "list"], "shortNames": ["st"],
            "subresources": [{"subresource": "status", "responseKind": {"group": "", "version": "", "kind": "Storm"},
                "verbs": ["get"]}],
        }]}])
    );
    assert_eq!(discover(&tag).await.status(), 304);

    let (_, index) = house.ask("GET", "/openapi/v3", None).await;
    let url = index["paths"]["apis/weather.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let (code, document) = house.ask("GET", url, None).await;
    assert_eq!((code, document["openapi"].as_str().unwrap()), (200, "3.0.0"));
    let (_, v2) = house.ask("GET", "/openapi/v2", None).await;
    assert_eq!(v2["paths"]["/apis/weather.example.com/v1/storms"]["get"]["operationId"], "listStorms");
    assert_eq!(v2["definitions"]["com.example.Storm"]["type"], "object");

    assert_eq!(house.ask("DELETE", &format!("{SERVICES}/{NAME}"), None).await.0, 200);
    assert_eq!(house.ask("GET", "/apis/weather.example.com", None).await.0, 404);
    let (_, v2) = house.ask("GET", "/openapi/v2", None).await;
    assert!(v2["definitions"]["com.example.Storm"].is_null());
}

/// An APIService with a bundle, whose server shows `identity`.
async fn weather_of(identity: impl FnOnce(&Authority) -> pki::Identity, bundle: &str) -> Weather {
    let cluster = Authority::create("cluster", now()).unwrap();
    let house = house(&cluster).await;
    let extension = Extension::showing(&identity(&cluster), &cluster.trust().unwrap()).await;
    house.backends.addresses.lock().unwrap().push(extension.address);
    let task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(house.server.clone().aggregate()));
    house.ask("POST", SERVICES, Some(api_service(Some(bundle)))).await;
    let weather = Weather { house, extension, _task: task };
    weather.add_service().await;
    weather
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let third = Authority::create("third", now()).unwrap();
    let other = |_: &Authority| self_signed(&["weather.default.svc"], 3000);
    let weather = weather_of(other, third.certificate_pem()).await;
    let condition = weather.until("FailedDiscoveryCheck").await;
    assert!(condition["message"].as_str().unwrap().contains("certificate"), "{condition}");
}

#[tokio::test]
async fn a_server_whose_own_certificate_is_the_bundle_is_believed_if_name_and_time_fit() {
    let good = self_signed(&["weather.default.svc"], 3000);
    let bundle = good.certificate_pem().to_owned();
    weather_of(|_| good, &bundle).await.until("Passed").await;
    for (wrong, why) in [
        (self_signed(&["hail.default.svc"], 3000), "not valid for name"),
        (self_signed(&["weather.default.svc"], 2020), "Expired"),
    ] {
        let bundle = wrong.certificate_pem().to_owned();
        let condition = weather_of(|_| wrong, &bundle).await.until("FailedDiscoveryCheck").await;
        assert!(condition["message"].as_str().unwrap().contains(why), "{why}: {condition}");
    }
}

#[tokio::test]
async fn groups_that_are_built_in_stay_here_and_say_that_they_are_available() {
    let weather = Weather::new(true).await;
    let house = &weather.house;
    let stolen = json!({"spec": {"service": {"namespace": "default", "name": "weather"}, "insecureSkipTLSVerify": true}});
    let (code, answer) = house.ask("PATCH", &format!("{SERVICES}/v1.apps"), Some(stolen)).await;
    assert_eq!(code, 200, "{answer}");
    let (code, list) = house.ask("GET", "/apis/apps/v1/deployments", None).await;
    assert_eq!((code, list["kind"].as_str().unwrap()), (200, "DeploymentList"));
    let (_, service) = house.ask("GET", &format!("{SERVICES}/v1.batch"), None).await;
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");

    let (code, map) = house
        .ask("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", None)
        .await;
    assert_eq!(code, 200);
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(
        map["data"]["requestheader-client-ca-file"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE")
    );
}
