//! The OpenAPI documents as clients fetch and keep them.

use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::Body;

use crate::conversion::{DEFINITIONS, done, until};
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

/// Of a kind that a definition made.
#[tokio::test]
async fn a_definition_is_told_as_upstream_tells_it() {
    let house = House::new().await;
    let name = "com.example-site.ci.v1.Build";
    let spec = json!({"type": "object", "properties": {
        "port": {"x-kubernetes-int-or-string": true},
        "ports": {"type": "array", "items": {"x-kubernetes-int-or-string": true, "anyOf": [{"minimum": 1}]}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "builds.ci.example-site.com"}, "spec": {"group": "ci.example-site.com",
        "scope": "Namespaced", "names": {"plural": "builds", "kind": "Build"}, "versions": [{
            "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "selectableFields": [{"jsonPath": ".color"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "color": {"type": "string"}}}}}]}});
    done(&house, "POST", DEFINITIONS, Some(definition)).await;
    let path = "/openapi/v3/apis/ci.example-site.com/v1";
    until(&house, path, |code, _| code == 200).await;
    let document = done(&house, "GET", path, None).await;
    assert_eq!(document["info"], json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}));
    let schemas = &document["components"]["schemas"];
    for kind in [name.to_owned(), format!("{name}List")] {
        assert_eq!(
            schemas[&kind]["x-kubernetes-selectable-fields"],
            json!([{"fieldPath": "color"}]),
            "{kind}"
        );
    }
    let spec = &schemas[name]["properties"]["spec"]["properties"];
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    assert_eq!(spec["port"]["anyOf"], either);
    assert_eq!(spec["ports"]["items"]["allOf"], json!([{"anyOf": either}]));
    let all = "/apis/ci.example-site.com/v1/namespaces/{namespace}/builds";
    let paths = document["paths"].as_object().unwrap();
    let others =
        ["".to_owned(), "/{name}".to_owned(), "/{name}/status".to_owned()].map(|end| format!("{all}{end}"));
    let everywhere = "/apis/ci.example-site.com/v1/builds".to_owned();
    assert_eq!(paths.keys().cloned().collect::<Vec<_>>(), [&[everywhere][..], &others].concat());
    let one = &paths[&others[1]];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let forms = ["application/json", "application/yaml"];
    assert_eq!(one["patch"]["operationId"], "patchCiExampleSiteComV1NamespacedBuild");
    assert_eq!(one["patch"]["tags"], json!(["ciExampleSiteCom_v1"]));
    assert_eq!(keys(&one["patch"]["responses"]), ["200", "401"]);
    assert_eq!(
        keys(&one["patch"]["requestBody"]["content"]),
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    );
    assert_eq!(keys(&one["put"]["requestBody"]["content"]), forms);
    assert_eq!(keys(&one["get"]["responses"]["200"]["content"]), forms);
    assert!(one["get"]["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "resourceVersion"));
    assert_eq!(paths[all]["delete"].get("requestBody"), None);
    let options = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    let kinds = options["x-kubernetes-group-version-kind"].as_array().unwrap();
    assert_eq!(kinds.len(), 53, "those of upstream's Go client");
    assert_eq!(
        kinds[3],
        json!({"group": "admissionregistration.k8s.io", "kind": "DeleteOptions", "version": "v1beta1"})
    );

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = text(get(&house, "/apis", &[("accept", accept)]).await).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let is_ours = |group: &&Value| group["metadata"]["name"] == "ci.example-site.com";
    let group = answer["items"].as_array().unwrap().iter().find(is_ours).unwrap();
    let resource = &group["versions"][0]["resources"][0];
    let kind = json!({"group": "ci.example-site.com", "version": "v1", "kind": "Build"});
    assert_eq!((&resource["responseKind"], &resource["subresources"][0]["responseKind"]), (&kind, &kind));
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
