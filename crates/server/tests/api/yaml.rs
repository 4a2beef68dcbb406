//! Bodies in YAML: what they mean, and what they may cost.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::house::{House, admin, body_of};

const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const APPLY: &str = "application/apply-patch+yaml";

async fn send(
    house: &House,
    method: &str,
    path: &str,
    media_type: &str,
    body: impl Into<bytes::Bytes>,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    let response = house.server.handle(request.body(body_of(body.into())).unwrap(), Some(admin())).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn yaml_means_what_it_means_to_the_real_server() {
    let house = House::new().await;
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: yes\n  containers:\n  - &c\n    name: a\n    \
             image: i\n  - <<: *c\n    name: b\n  volumes:\n  - name: v\n    configMap: {{name: m, defaultMode: 0755}}\n"
        )
    };
    let (created, by_create) = send(&house, "POST", PODS, "application/yaml", pod("a")).await;
    let path = format!("{PODS}/b?fieldManager=me");
    let (applied, by_apply) = send(&house, "PATCH", &path, APPLY, pod("b")).await;
    assert_eq!((created, applied), (201, 201), "{by_create} {by_apply}");
    for pod in [by_create, by_apply] {
        let spec = &pod["spec"];
        assert_eq!(spec["hostNetwork"], true);
        assert_eq!(spec["volumes"][0]["configMap"]["defaultMode"], 493);
        assert_eq!(spec["containers"][1]["image"], "i");
    }
    // A text that YAML takes for something else is quoted on its way out.
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"on": "yes", "mode": "0755"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    send(&house, "POST", maps, "application/json", map.to_string()).await;
    let request = Request::get(format!("{maps}/m")).header("accept", "application/yaml").body(body_of(""));
    let answer = house.server.handle(request.unwrap(), Some(admin())).await;
    let read = values::from_yaml(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(read["data"], map["data"]);
}

#[tokio::test]
async fn keys_that_stand_twice_are_refused_under_strict() {
    let house = House::new().await;
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a: b\n  a: c\n";
    let why = "yaml: unmarshal errors:\n  line 6: key \"a\" already set in map";
    let path = "/api/v1/namespaces/default/configmaps";
    let (code, status) =
        send(&house, "POST", &format!("{path}?fieldValidation=Strict"), "application/yaml", map).await;
    assert_eq!(
        (code, status["message"].as_str().unwrap()),
        (
            400,
            &*format!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {why}"
            )
        )
    );
    let applied = format!("{path}/m?fieldManager=me&fieldValidation=Strict");
    let (code, status) = send(&house, "PATCH", &applied, APPLY, map).await;
    assert_eq!(
        (code, status["message"].as_str().unwrap()),
        (400, &*format!("error strict decoding YAML: {why}"))
    );
    assert_eq!(send(&house, "POST", path, "application/yaml", map).await.0, 201);
}

/// Whatever a body of a few MB nests, repeats or refers to: it is refused before its values are made.
#[tokio::test]
async fn bodies_that_would_cost_too_much_are_refused() {
    let house = House::new().await;
    let million = |part: &str| part.repeat(1_000_000 / part.len());
    let laughs = (1..10).fold("a0: &a0 [lol]\n".to_owned(), |text, level| {
        text + &format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9))
    });
    for (body, code) in [
        (million("["), 400),
        (format!("a: {}", million("[")), 400),
        (million("{"), 400),
        (million("- "), 400),
        (million("? "), 400),
        (laughs, 413),
        (format!("spec: [{}]", million("{},")), 413),
    ] {
        for (method, path, media_type) in [
            ("POST", REVIEWS, "application/yaml"),
            ("POST", PODS, "application/yaml"),
            ("DELETE", "/api/v1/namespaces/default/pods/x", "application/yaml"),
            ("PATCH", "/api/v1/namespaces/default/pods/x?fieldManager=me", APPLY),
        ] {
            let (found, status) = send(&house, method, path, media_type, body.clone()).await;
            assert_eq!(found, code, "{method} {path}: {status}");
            assert!(status.to_string().len() < 2000, "{status}");
        }
    }
    let many = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","spec":{{"containers":[{}{{}}]}}}}"#,
        "{},".repeat(900_000)
    );
    for (method, media_type) in [
        ("POST", "application/json"),
        ("PATCH", "application/merge-patch+json"),
        ("PATCH", "application/strategic-merge-patch+json"),
    ] {
        let path = if method == "POST" { PODS.to_owned() } else { format!("{PODS}/x") };
        assert_eq!(send(&house, method, &path, media_type, many.clone()).await.0, 413, "{media_type}");
    }
}
