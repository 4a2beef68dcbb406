//! Reads: watches as they happen, pages of one state, health, and who may not.

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::{Body, Identity};
use store::Store;

use crate::house::{House, admin, body_of, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}})
}

async fn next_line(body: &mut http_body_util::BodyDataStream<Body>) -> Option<Value> {
    let bytes = body.next().await?.unwrap();
    Some(serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_watch_tells_changes_as_they_happen_and_ends_with_the_server() {
    let house = House::new().await;
    let mut body = house.get(&format!("{MAPS}?watch=1")).await.into_body().into_data_stream();
    house.ask("POST", MAPS, Some(map("a"))).await;
    let added = next_line(&mut body).await.unwrap();
    assert_eq!((&added["type"], &added["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    house.ask("DELETE", &format!("{MAPS}/a"), None).await;
    let deleted = next_line(&mut body).await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(
        deleted["object"]["metadata"]["resourceVersion"],
        house.store.snapshot().revision().to_string(),
        "of the revision that deleted it"
    );
    house.server.close();
    assert_eq!(next_line(&mut body).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_gets_bookmarks_of_what_happened_elsewhere() {
    let house = House::new().await;
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion=0");
    let mut body = house.get(&path).await.into_body().into_data_stream();
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}});
    house.ask("POST", "/api/v1/nodes", Some(node)).await;
    let bookmark = next_line(&mut body).await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let revision = house.store.snapshot().revision().to_string();
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], revision);
}

#[tokio::test]
async fn the_past_that_is_forgotten_is_gone() {
    let house = House::new().await;
    house.ask("POST", MAPS, Some(map("a"))).await;
    house.ask("POST", MAPS, Some(map("b"))).await;
    let (_, page) = house.ask("GET", &format!("{MAPS}?limit=1"), None).await;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    house.ask("POST", MAPS, Some(map("c"))).await;
    let (_, rest) = house.ask("GET", &format!("{MAPS}?limit=9&continue={token}"), None).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1, "the page of the state that the first one was of");
    assert_eq!(rest["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);

    house.ask("POST", MAPS, Some(map("d"))).await;
    house.store.compact(house.store.snapshot().revision()).await.unwrap();
    let (code, gone) = house.ask("GET", &format!("{MAPS}?limit=9&continue={token}"), None).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")));
    let watch = text(house.get(&format!("{MAPS}?watch=1&resourceVersion=2")).await).await;
    let error: Value = serde_json::from_str(&watch).unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn nobody_and_strangers_get_nothing() {
    let house = House::new().await;
    for path in ["/api/v1/nodes", "/version", "/healthz", "/apis", "/nothing"] {
        let request = Request::get(path).body(body_of("")).unwrap();
        assert_eq!(house.server.handle(request, None).await.status(), 401, "{path}");
    }
    let stranger = Identity { user: "stranger".into(), groups: vec!["people".into()] };
    let (code, status) = house.ask_as(stranger.clone(), "GET", "/api/v1/nodes", None).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    let question = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (who, allowed) in [(stranger, false), (admin(), true)] {
        let (code, answer) = house.ask_as(who, "POST", path, Some(question.clone())).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(allowed)));
    }
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let house = House::new().await;
    let mut large = map("large");
    large["data"] = json!({"k": "v".repeat(4 << 20)});
    let (code, status) = house.ask("POST", MAPS, Some(large)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
}

#[tokio::test]
async fn readiness_can_be_asked_in_detail() {
    let house = House::new().await;
    assert_eq!(
        text(house.get("/readyz?verbose").await).await,
        "[+]ping ok\n[+]store ok\nreadyz check passed\n"
    );
    assert_eq!(house.get("/readyz/nothing").await.status(), 404);
    let (_, version) = house.ask("GET", "/version", None).await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.2+holdfast"));
}
