//! The OpenAPI documents as clients fetch and keep them.

use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use server::Body;

use crate::house::{House, admin, body_of, text};

async fn get(house: &House, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    house.server.handle(request.body(body_of("")).unwrap(), Some(admin())).await
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
    answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn the_v2_document_comes_as_json_and_protobuf_and_is_sent_once() {
    let house = House::new().await;
    const V2: &str = "/openapi/v2";
    let answer = get(&house, V2, &[]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/json"));
    let tag = header(&answer, "etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 10, "{tag}");
    let document: Value = serde_json::from_str(&text(answer).await).unwrap();
    let spec = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert!(spec["$ref"].is_string());
    assert!(
        spec["description"]
            .as_str()
            .unwrap()
            .starts_with("Specification of the desired behavior of the pod.")
    );

    let answer = get(&house, V2, &[("if-none-match", &tag)]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "etag")), (304, &*tag));
    assert_eq!(text(answer).await, "");
    let answer = get(&house, V2, &[("accept-encoding", "gzip")]).await;
    assert_eq!(header(&answer, "content-encoding"), "gzip");
    let packed = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(packed.len() < 600_000, "{}", packed.len());

    // As kubectl asks.
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = get(&house, V2, &[("accept", accept)]).await;
    assert_eq!(header(&answer, "content-type"), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert_ne!(header(&answer, "etag"), tag);
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.starts_with(b"\n\x032.0"));
    assert_eq!(get(&house, V2, &[("accept", "image/png")]).await.status(), 406);
}

#[tokio::test]
async fn documents_of_v3_may_be_kept_for_as_long_as_their_hash_is_true() {
    let house = House::new().await;
    let index: Value = serde_json::from_str(&text(get(&house, "/openapi/v3", &[]).await).await).unwrap();
    let path = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let answer = get(&house, path, &[]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "cache-control"), "public, immutable");
    assert!(header(&answer, "expires").ends_with(" GMT"));
    let tag = header(&answer, "etag").to_owned();
    assert!(path.ends_with(tag.trim_matches('"')), "{path} {tag}");
    assert_eq!(get(&house, path, &[("if-none-match", &tag)]).await.status(), 304);

    let answer = get(&house, "/openapi/v3/apis/apps/v1?hash=0", &[]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (301, path));
    let answer = get(&house, "/openapi/v3/apis/apps/v1", &[]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, ""));
    let accept = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    let answer = get(&house, path, &[("accept", accept)]).await;
    assert_eq!(header(&answer, "content-type"), accept);
    assert!(answer.into_body().collect().await.unwrap().to_bytes().starts_with(b"\n\x053.0.0"));
    assert_eq!(get(&house, "/openapi/v3/apis/none/v1", &[]).await.status(), 404);
}
