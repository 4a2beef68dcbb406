//! Tokens of service accounts: who may have them, whose they are, and until when.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::Request;
use serde_json::{Value, json};

use crate::house::{CERTIFICATE, House, body_of, node, text};

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const USER: &str = "system:serviceaccount:default:default";

async fn request_token(house: &House, spec: Value) -> (u16, Value) {
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    house.ask("POST", &format!("{ACCOUNT}/token"), Some(request)).await
}

async fn token(house: &House, spec: Value) -> String {
    let (code, answer) = request_token(house, spec).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// The server's answer to a client that sends a token and shows no certificate.
async fn with_token(house: &House, token: &str, path: &str) -> (u16, Value) {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let response = house.server.handle(request.body(body_of("")).unwrap(), None).await;
    let code = response.status().as_u16();
    (code, serde_json::from_str(&text(response).await).unwrap_or_default())
}

async fn review(house: &House, token: &str, audiences: Value) -> Value {
    let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
        "spec": {"token": token, "audiences": audiences}});
    let (code, answer) = house.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(review)).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"].clone()
}

async fn pod_on(house: &House, node: &str) -> Value {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "i"}]}});
    let (code, pod) = house.ask("POST", PODS, Some(pod)).await;
    assert_eq!(code, 201, "{pod}");
    pod
}

#[tokio::test]
async fn the_holder_of_an_accounts_token_is_that_account() {
    let house = House::new().await;
    let token = token(&house, json!({})).await;
    assert_eq!(with_token(&house, &token, PODS).await.0, 403, "known, but nobody gave it a right");
    let binding = json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "cluster-admin"}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(house.ask("POST", path, Some(binding)).await.0, 201);
    assert_eq!(with_token(&house, &token, PODS).await.0, 200);

    let status = review(&house, &token, Value::Null).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!((&status["authenticated"], &status["user"]["username"]), (&json!(true), &json!(USER)));
    assert_eq!(status["user"]["groups"], json!(groups));
    let mut forged = token.clone();
    forged.replace_range(token.len() - 8.., "AAAAAAAA");
    assert_eq!(with_token(&house, &forged, PODS).await.0, 401);

    assert_eq!(house.ask("DELETE", ACCOUNT, None).await.0, 200);
    assert_eq!(with_token(&house, &token, PODS).await.0, 401);
    house.account("default").await;
    assert_eq!(with_token(&house, &token, PODS).await.0, 401, "another one of the same name");
}

#[tokio::test]
async fn a_token_is_for_those_it_was_made_for() {
    let house = House::new().await;
    let token = token(&house, json!({"audiences": ["vault"], "expirationSeconds": 600})).await;
    assert_eq!(with_token(&house, &token, PODS).await.0, 401);
    let status = review(&house, &token, json!(["other", "vault"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(review(&house, &token, json!(["other"])).await["error"], "invalid bearer token");
    let (code, answer) = request_token(&house, json!({"expirationSeconds": 599})).await;
    assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!("spec.expirationSeconds")));
}

#[tokio::test]
async fn a_pods_token_ends_with_the_pod_and_only_its_host_gets_it() {
    let house = House::new().await;
    let pod = pod_on(&house, "n1").await;
    let bound = |uid: &Value| {
        json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid},
            "expirationSeconds": 3607})
    };
    let request =
        |spec: Value| json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    let path = format!("{ACCOUNT}/token");
    let uid = &pod["metadata"]["uid"];
    let (code, answer) = house.ask_as(node("n1"), "POST", &path, Some(request(bound(uid)))).await;
    assert_eq!(code, 201, "{answer}");
    let of_other = house.ask_as(node("n2"), "POST", &path, Some(request(bound(uid)))).await;
    assert_eq!(of_other.0, 403, "{}", of_other.1);
    let unbound = house.ask_as(node("n1"), "POST", &path, Some(request(json!({})))).await;
    assert_eq!(unbound.0, 403, "{}", unbound.1);
    assert_eq!(request_token(&house, bound(&json!("another"))).await.0, 409);

    let token = answer["status"]["token"].as_str().unwrap();
    let status = review(&house, token, Value::Null).await;
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["n1"]));
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let seconds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(seconds, 365 * 24 * 3600, "for those who never read it again");
    assert_eq!(house.ask("DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), None).await.0, 200);
    assert_eq!(with_token(&house, token, PODS).await.0, 401);
}

#[tokio::test]
async fn a_secret_for_an_account_is_filled_in_and_ends_with_it() {
    let house = House::new().await;
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "default"}}});
    let path = "/api/v1/namespaces/default/secrets";
    let (code, secret) = house.ask("POST", path, Some(secret)).await;
    assert_eq!(code, 201, "{secret}");
    let data = |key: &str| {
        let bytes = BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!((data("ca.crt").as_str(), data("namespace").as_str()), (CERTIFICATE, "default"));
    let token = data("token");
    assert_eq!(review(&house, &token, Value::Null).await["user"]["username"], USER);
    assert_eq!(with_token(&house, &token, PODS).await.0, 403);
    assert_eq!(house.ask("DELETE", &format!("{path}/s"), None).await.0, 200);
    assert_eq!(with_token(&house, &token, PODS).await.0, 401);
}

#[tokio::test]
async fn anybody_can_check_tokens_with_the_published_key() {
    let house = House::new().await;
    let token = token(&house, json!({})).await;
    let issuer = house.get("/.well-known/openid-configuration").await;
    let issuer: Value = serde_json::from_str(&text(issuer).await).unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["iss"], issuer["issuer"]);
    let keys = house.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers()["content-type"], "application/jwk-set+json");
    let keys: Value = serde_json::from_str(&text(keys).await).unwrap();
    let key = &keys["keys"][0];
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&header).unwrap()["kid"], key["kid"]);
    let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], part("x"), part("y")].concat();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(message.as_bytes(), &signature).unwrap();
}
