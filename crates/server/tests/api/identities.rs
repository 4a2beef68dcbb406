//! Who may do what, as one table; and what speaks for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use server::{Edge, SystemEdge, UserInfo};

use crate::house::{House, admin, body_of, node};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const NAMESPACE: &str = "/api/v1/namespaces/default";

/// What somebody shows of themselves.
enum Shown {
    Nothing,
    Certificate(UserInfo),
    Header(String),
}

/// The answer's code.
async fn ask(house: &House, shown: &Shown, method: &str, path: &str, body: &Value) -> u16 {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
    let who = match shown {
        Shown::Nothing => None,
        Shown::Certificate(who) => Some(who.clone()),
        Shown::Header(header) => {
            request = request.header("authorization", header);
            None
        }
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = house.server.handle(request.body(body_of(body)).unwrap(), who).await;
    response.status().as_u16()
}

async fn made(house: &House, path: &str, object: Value) -> Value {
    let (code, answer) = house.ask("POST", path, Some(object)).await;
    assert_eq!(code, 201, "{path}: {answer}");
    answer
}

/// A token of the account `robot`.
async fn token(house: &House, spec: Value) -> String {
    let path = format!("{NAMESPACE}/serviceaccounts/robot/token");
    let answer = made(house, &path, token_request(spec)).await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn token_request(spec: Value) -> Value {
    json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec})
}

/// What the table's requests are about: a pod on each of two nodes, what the first one uses, and who has which roles.
async fn furnish(house: &House) {
    for name in ["n1", "n2"] {
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
        made(house, "/api/v1/nodes", node).await;
        let lease =
            json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name}});
        made(house, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
    }
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}});
    made(house, &format!("{NAMESPACE}/secrets"), secret).await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}});
    made(house, &format!("{NAMESPACE}/configmaps"), map).await;
    let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot"}});
    made(house, &format!("{NAMESPACE}/serviceaccounts"), account).await;
    for (name, node, volumes) in
        [("p1", "n1", json!([{"name": "v", "secret": {"secretName": "s"}}])), ("p2", "n2", json!([]))]
    {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
            "nodeName": node, "volumes": volumes, "containers": [{"name": "a", "image": "i"}]}});
        made(house, &format!("{NAMESPACE}/pods"), pod).await;
    }
    // No controllers run here that would fill in the roles `view`, `edit` and `admin`: these are what they are made of.
    let roles = [("view", 1), ("edit", 2), ("admin", 3)];
    let user = |name: &str| json!({"kind": "User", "name": name});
    for (name, count) in roles {
        for (role, _) in &roles[..count] {
            bind(house, &format!("{name}-{role}"), role, user(name)).await;
        }
    }
    let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    bind(house, "robot", "view", robot).await;
}

async fn bind(house: &House, name: &str, role: &str, subject: Value) {
    let binding = json!({
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": format!("system:aggregate-to-{role}")},
        "subjects": [subject],
    });
    made(house, &format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
}

/// What is sent with a request.
fn body(method: &str, path: &str) -> Value {
    let kind = path.rsplit('/').next().unwrap_or_default();
    let binding = |kind: &str, role: &str| {
        json!({"kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "new"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "joe"}]})
    };
    match (method, kind) {
        ("POST", "pods") => json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "new"},
            "spec": {"containers": [{"name": "a", "image": "i"}]}}),
        ("POST", "configmaps") => {
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "new"}})
        }
        ("POST", "secrets") => json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "new"}}),
        ("POST", "eviction") => {
            json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p1"}})
        }
        ("POST", "token") => token_request(json!({})),
        ("POST", "rolebindings") => binding("RoleBinding", "system:aggregate-to-view"),
        ("POST", "clusterrolebindings") => binding("ClusterRoleBinding", "cluster-admin"),
        ("POST", "tokenreviews") => {
            json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": "x"}})
        }
        ("POST", "selfsubjectaccessreviews") => json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}}),
        ("PATCH", "status") => json!({"status": {"message": "seen"}}),
        ("PATCH", _) => json!({"metadata": {"labels": {"a": "b"}}}),
        _ => Value::Null,
    }
}

/// Who asks; each is a column of the table.
const WHO: [&str; 10] =
    ["nobody", "without roles", "view", "edit", "admin", "n1", "n2", "account", "manager", "administrator"];

/// `+` is done, `-` is forbidden (403), `?` isn't answered to whom nobody knows (401). Nothing that is asked changes anything.
const TABLE: [(&str, &str, &str); 36] = [
    ("GET", "/healthz", "++++++++++"),
    ("GET", "/livez", "++++++++++"),
    ("GET", "/readyz", "++++++++++"),
    ("POST", "/readyz", "?--------."),
    ("GET", "/readyz/ping", "?--------+"),
    ("GET", "/version", "?+++++++++"),
    ("GET", "/apis", "?+++++++++"),
    ("GET", "/metrics", "?--------+"),
    ("GET", "/openid/v1/jwks", "?------+-+"),
    ("GET", "NS/pods/p1", "?-++++-+-+"),
    ("GET", "NS/pods", "?-+++--+++"),
    ("GET", "NS/pods?fieldSelector=spec.nodeName%3Dn1", "?-++++-+++"),
    ("GET", "/api/v1/pods", "?-------++"),
    ("POST", "NS/pods", "?--++----+"),
    ("PATCH", "NS/pods/p1", "?--++----+"),
    ("PATCH", "NS/pods/p1/status", "?----+---+"),
    ("GET", "NS/secrets/s", "?--+++--++"),
    ("GET", "NS/secrets", "?--++---++"),
    ("GET", "/api/v1/namespaces/kube-system/secrets", "?-------++"),
    ("POST", "NS/secrets", "?--++---++"),
    ("GET", "NS/configmaps/m", "?-+++--+++"),
    ("POST", "NS/configmaps", "?--++----+"),
    ("POST", "NS/serviceaccounts/robot/token", "?--++---++"),
    ("GET", "/api/v1/nodes", "?-------++"),
    ("GET", "/api/v1/nodes/n1", "?----+---+"),
    ("PATCH", "/api/v1/nodes/n1", "?----+---+"),
    ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "?----+---+"),
    ("GET", "/apis/apps/v1/namespaces/default/deployments", "?-+++--+++"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", "?---+---++"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", "?---+----+"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "?--------+"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "?----++-++"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "?+++++++++"),
    ("POST", "NS/pods/p1/eviction", "?--+++---+"),
    ("DELETE", "NS/pods/p1", "?--+++---+"),
    ("DELETE", "/api/v1/nodes/n1", "?--------+"),
];

#[tokio::test]
async fn each_identity_may_do_what_the_table_says() {
    let house = House::new().await;
    furnish(&house).await;
    let person = |name: &str| Shown::Certificate(UserInfo::new(name, ["people"]));
    let who = [
        Shown::Nothing,
        person("joe"),
        person("view"),
        person("edit"),
        person("admin"),
        Shown::Certificate(node("n1")),
        Shown::Certificate(node("n2")),
        Shown::Header(format!("Bearer {}", token(&house, json!({})).await)),
        person("system:kube-controller-manager"),
        Shown::Certificate(admin()),
    ];
    let mut wrong = Vec::new();
    for (method, path, expected) in TABLE {
        assert_eq!(expected.len(), WHO.len(), "{method} {path}");
        let full = path.replace("NS/", "/api/v1/namespaces/default/");
        let full = if method == "GET" { full } else { format!("{full}?dryRun=All") };
        for ((name, shown), expected) in WHO.iter().zip(&who).zip(expected.chars()) {
            let code = ask(&house, shown, method, &full, &body(method, path)).await;
            let found = match code {
                200..300 => '+',
                401 => '?',
                403 => '-',
                _ => '.',
            };
            if found != expected {
                wrong.push(format!("{method} {path} by {name}: {code}, and not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A clock that is set.
#[derive(Debug)]
struct Set(Timestamp, AtomicI64);

impl Edge for Set {
    fn now(&self) -> Timestamp {
        self.0 + SignedDuration::from_secs(self.1.load(Ordering::Relaxed))
    }

    fn instant(&self) -> Instant {
        SystemEdge.instant()
    }

    fn random(&self) -> u64 {
        SystemEdge.random()
    }
}

#[tokio::test]
async fn what_is_no_good_credential_is_refused_where_none_would_do() {
    let clock = Arc::new(Set("2030-01-02T03:04:05Z".parse().unwrap(), AtomicI64::new(0)));
    let house = House::driven(clock.clone()).await;
    furnish(&house).await;
    let good = token(&house, json!({"expirationSeconds": 600})).await;
    let bearer = |token: &str| Shown::Header(format!("Bearer {token}"));
    let pods = format!("{NAMESPACE}/pods");
    let asked = async |shown: &Shown| {
        (
            ask(&house, shown, "GET", &pods, &Value::Null).await,
            ask(&house, shown, "GET", "/healthz", &Value::Null).await,
        )
    };
    assert_eq!(asked(&bearer(&good)).await, (200, 200));

    let (claims, signature) = good.rsplit_once('.').unwrap();
    let unsigned = format!(
        "{}.{}.",
        BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        claims.split_once('.').unwrap().1
    );
    let other = House::driven(clock.clone()).await;
    furnish(&other).await;
    let pod = house.ask("GET", &format!("{pods}/p2"), None).await.1;
    let bound = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p2",
        "uid": pod["metadata"]["uid"]}});
    // The pod runs as another account.
    let path = format!("{NAMESPACE}/serviceaccounts/default/token");
    let of_pod = made(&house, &path, token_request(bound)).await["status"]["token"].clone();
    assert_eq!(asked(&bearer(of_pod.as_str().unwrap())).await, (403, 200), "known, without a right");
    assert_eq!(house.ask("DELETE", &format!("{pods}/p2?gracePeriodSeconds=0"), None).await.0, 200);
    for (what, shown) in [
        ("nonsense", bearer("nonsense")),
        ("three parts of nonsense", bearer("a.b.c")),
        ("no token at all", Shown::Header("Bearer".into())),
        ("an empty token", Shown::Header("Bearer ".into())),
        ("a token that lets a machine join", bearer("abcdef.0123456789abcdef")),
        ("a name and a password", Shown::Header("Basic YWRtaW46YWRtaW4=".into())),
        ("a token without a signature", bearer(&format!("{claims}."))),
        ("a token that wants none", bearer(&unsigned)),
        ("a signature of something else", bearer(&format!("{}.{signature}", of_pod_claims(&of_pod)))),
        ("a token of another cluster", bearer(&token(&other, json!({})).await)),
        ("a token for somebody else", bearer(&token(&house, json!({"audiences": ["vault"]})).await)),
        ("a token of a pod that is gone", bearer(of_pod.as_str().unwrap())),
    ] {
        assert_eq!(asked(&shown).await, (401, 401), "{what}");
    }
    for (what, seconds, code) in [
        ("in its time", 599, 200),
        ("over", 600, 401),
        ("a clock a little behind", -60, 200),
        ("not yet", -61, 401),
    ] {
        clock.1.store(seconds, Ordering::Relaxed);
        assert_eq!(asked(&bearer(&good)).await, (code, code), "{what}");
    }
}

fn of_pod_claims(token: &Value) -> &str {
    token.as_str().and_then(|token| token.rsplit_once('.')).unwrap().0
}
