//! Protobuf, CBOR and YAML: what goes in and comes out in each is the same object.

use futures::StreamExt;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::house::{House, admin, body_of};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"a": "b"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": "web"}}, "resources": {"requests": {"cpu": "100m"}}}]}})
}

async fn ask(
    house: &House,
    method: &str,
    path: &str,
    sent: &str,
    wanted: &str,
    body: Vec<u8>,
) -> (u16, HeaderMap, Vec<u8>) {
    let request =
        Request::builder().method(method).uri(path).header("content-type", sent).header("accept", wanted);
    let response = house.server.handle(request.body(body_of(body)).unwrap(), Some(admin())).await;
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    (code, headers, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn encode(encoding: &str, value: &Value) -> Vec<u8> {
    match encoding {
        PROTOBUF => api::to_protobuf(value.as_object().unwrap()).unwrap(),
        "application/cbor" => machinery::to_cbor(value),
        _ => value.to_string().into_bytes(),
    }
}

fn decode(encoding: &str, bytes: &[u8]) -> Value {
    match encoding {
        PROTOBUF => api::from_protobuf(bytes, ("", "")).unwrap(),
        "application/cbor" => machinery::from_cbor(bytes).unwrap(),
        "application/yaml" => values::from_yaml(bytes).unwrap(),
        _ => serde_json::from_slice(bytes).unwrap(),
    }
}

#[tokio::test]
async fn an_object_is_the_same_in_every_encoding() {
    let house = House::new().await;
    let encodings = ["application/json", "application/yaml", "application/cbor", PROTOBUF];
    for (index, sent) in encodings.into_iter().enumerate() {
        let name = format!("p{index}");
        let (code, headers, body) =
            ask(&house, "POST", PODS, sent, PROTOBUF, encode(sent, &pod(&name))).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (201, PROTOBUF), "{sent}");
        assert_eq!(
            decode(PROTOBUF, &body)["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"],
            "web"
        );
        let path = format!("{PODS}/{name}");
        let (_, plain) = house.ask("GET", &path, None).await;
        assert_eq!(plain["spec"]["containers"][0]["resources"]["requests"]["cpu"], "100m", "{sent}: {plain}");
        for wanted in encodings {
            let (code, headers, body) = ask(&house, "GET", &path, sent, wanted, Vec::new()).await;
            assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, wanted));
            let read = decode(wanted, &body);
            if wanted == PROTOBUF {
                for path in [
                    "/kind",
                    "/apiVersion",
                    "/metadata/uid",
                    "/metadata/resourceVersion",
                    "/spec/tolerations",
                ] {
                    assert_eq!(read.pointer(path), plain.pointer(path), "{path}");
                }
            } else {
                assert_eq!(read, plain, "{sent} {wanted}");
            }
            let (_, _, body) = ask(&house, "GET", PODS, sent, wanted, Vec::new()).await;
            let list = decode(wanted, &body);
            assert_eq!(
                (&list["kind"], &list["items"][index]["metadata"]["name"]),
                (&json!("PodList"), &json!(name))
            );
        }
    }
}

#[tokio::test]
async fn deletes_scales_and_errors_speak_the_clients_encoding() {
    let house = House::new().await;
    house.ask("POST", PODS, Some(pod("a"))).await;
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "x"}});
    let path = format!("{PODS}/a");
    let (code, headers, body) =
        ask(&house, "DELETE", &path, PROTOBUF, PROTOBUF, encode(PROTOBUF, &options)).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (409, PROTOBUF));
    let status = decode(PROTOBUF, &body);
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!("Status"), &json!("Conflict"), &json!(409))
    );
    let (code, ..) = ask(&house, "POST", PODS, "text/html", PROTOBUF, b"<p>".to_vec()).await;
    assert_eq!(code, 415);
    let (code, ..) = ask(&house, "GET", PODS, PROTOBUF, "image/png", Vec::new()).await;
    assert_eq!(code, 406);
    let (code, ..) = ask(&house, "POST", PODS, PROTOBUF, PROTOBUF, b"k8s\0\x12\xff".to_vec()).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn what_nobody_can_read_again_is_no_table() {
    let house = House::new().await;
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let body = review.to_string().into_bytes();
    let (code, ..) = ask(&house, "POST", path, "application/json", table, body.clone()).await;
    assert_eq!(code, 406);
    let either = format!("{table},application/json");
    let (code, _, body) = ask(&house, "POST", path, "application/json", &either, body).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &answer["kind"]), (201, &review["kind"]));
}

#[tokio::test]
async fn a_watch_tells_frames_in_the_clients_encoding() {
    let house = House::new().await;
    for (wanted, stream_type) in [
        (PROTOBUF, "application/vnd.kubernetes.protobuf;stream=watch"),
        ("application/cbor", "application/cbor-seq"),
    ] {
        let request =
            Request::get(format!("{PODS}?watch=1")).header("accept", wanted).body(body_of("")).unwrap();
        let response = house.server.handle(request, Some(admin())).await;
        assert_eq!(response.headers()["content-type"], stream_type);
        let mut frames = response.into_body().into_data_stream();
        let name = wanted.rsplit(['.', '/']).next().unwrap();
        house.ask("POST", PODS, Some(pod(name))).await;
        loop {
            let frame = frames.next().await.unwrap().unwrap();
            if wanted == PROTOBUF {
                assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
                let at = frame.windows(4).position(|window| window == b"k8s\0").unwrap();
                let object = api::from_protobuf(&frame[at..], ("", "")).unwrap();
                if object["metadata"]["name"] == name {
                    break;
                }
            } else if machinery::from_cbor(&frame).unwrap()["object"]["metadata"]["name"] == name {
                break;
            }
        }
    }
    let request =
        Request::get(format!("{PODS}?watch=1")).header("accept", "application/yaml").body(body_of(""));
    assert_eq!(house.server.handle(request.unwrap(), Some(admin())).await.status(), 406);
}

/// A field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test]
async fn a_million_elements_are_refused_before_they_are_made() {
    let house = House::new().await;
    let million = |item: &str| format!("{}{item}", format!("{item},").repeat(999_999));
    let text = format!(r#"{{"metadata":{{"name":"p"}},"spec":{{"containers":[{}]}}}}"#, million("{}"));
    let containers = field(2, &field(2, b"").repeat(1_000_000));
    let kind = [field(1, b"v1"), field(2, b"Pod")].concat();
    let protobuf = [b"k8s\0".to_vec(), field(1, &kind), field(2, &containers)].concat();
    // {"spec": {"containers": [{}, ...]}}
    let mut cbor = b"\xd9\xd9\xf7\xa1\x44spec\xa1\x4acontainers\x9a\x00\x0f\x42\x40".to_vec();
    cbor.extend([0xa0; 1_000_000]);
    for (encoding, body) in [
        ("application/json", text.clone().into_bytes()),
        ("application/yaml", text.into_bytes()),
        ("application/cbor", cbor),
        (PROTOBUF, protobuf),
    ] {
        let (code, _, body) = ask(&house, "POST", PODS, encoding, "application/json", body).await;
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")), "{encoding}: {status}");
    }
}

#[tokio::test]
async fn a_refusal_tells_a_hundred_faults_and_counts_the_rest() {
    let house = House::new().await;
    for (path, kind, spec) in [
        (PODS, "Pod", json!({"containers": vec![json!({}); 20_000]})),
        ("/api/v1/namespaces/default/services", "Service", json!({"ports": vec![json!({}); 20_000]})),
    ] {
        let body = json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": "many"}, "spec": spec});
        let (code, status) = house.ask("POST", path, Some(body)).await;
        let causes = status["details"]["causes"].as_array().unwrap();
        assert_eq!((code, causes.len()), (422, 101), "{kind}");
        assert!(causes[..100].iter().all(|cause| cause["field"].as_str().unwrap().starts_with("spec.")));
        let last = causes[100]["message"].as_str().unwrap();
        assert!(
            last.starts_with("too many faults: at least ") && last.ends_with(" more faults not told"),
            "{last}"
        );
        let message = status["message"].as_str().unwrap();
        assert!(message.ends_with(&format!(", {last}]")) && message.len() < 20_000, "{message}");
    }
}
