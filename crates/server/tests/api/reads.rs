//! Reads: watches as they happen, pages of one state, health, and who may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::{Body, UserInfo};
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
    let watch = text(house.get(&format!("{MAPS}?watch=1&resourceVersion=2")).await).await;
    let error: Value = serde_json::from_str(&watch).unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test(start_paused = true)]
async fn the_next_page_can_be_asked_for_during_five_minutes() {
    let house = House::new().await;
    for name in ["a", "b", "c"] {
        house.ask("POST", MAPS, Some(map(name))).await;
    }
    let (_, page) = house.ask("GET", &format!("{MAPS}?limit=2"), None).await;
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    house.ask("DELETE", &format!("{MAPS}/c"), None).await;
    house.ask("POST", MAPS, Some(map("d"))).await;
    house.store.compact(house.store.snapshot().revision()).await.unwrap();
    let next = format!("{MAPS}?limit=2&continue={token}");
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, rest) = house.ask("GET", &next, None).await;
    assert_eq!(names(&rest), ["c"], "as it was, though the history is gone");

    tokio::time::sleep(std::time::Duration::from_secs(301)).await;
    let (code, gone) = house.ask("GET", &next, None).await;
    assert_eq!((code, &gone["reason"], &gone["details"]), (410, &json!("Expired"), &Value::Null));
    let token = gone["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = house.ask("GET", &format!("{MAPS}?limit=2&continue={token}"), None).await;
    assert_eq!((code, names(&rest)), (200, vec!["d".to_owned()]), "as it is now, from where it was");
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let house = House::new().await;
    for n in 0..3 {
        let mut map = map(&format!("large-{n}"));
        map["data"] = json!({"k": "v".repeat(100_000)});
        house.ask("POST", MAPS, Some(map)).await;
    }
    let plain = text(house.get(MAPS).await).await;
    for (path, encoding, compressed) in [
        (MAPS.to_owned(), "gzip", true),
        (MAPS.to_owned(), "gzip;q=0, br", false),
        (format!("{MAPS}/large-1"), "gzip", false),
    ] {
        let request = Request::get(&path).header("accept-encoding", encoding).body(body_of("")).unwrap();
        let response = house.server.handle(request, Some(admin())).await;
        let named =
            response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(named.as_deref(), compressed.then_some("gzip"), "{path} {encoding}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        if compressed {
            let mut read = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut read).unwrap();
            assert!(bytes.len() < 20_000 && read == plain);
        }
    }
}

#[tokio::test]
async fn a_write_wakes_the_watches_it_concerns_and_is_told_once_in_each_form() {
    let house = House::new().await;
    let watch = |path: &str| {
        let (house, path) = (&house, format!("{path}?watch=1"));
        async move { house.get(&path).await.into_body().into_data_stream() }
    };
    let mut same = Vec::new();
    for _ in 0..2 {
        same.push(watch(MAPS).await);
    }
    let mut everywhere = watch("/api/v1/configmaps").await;
    let mut selected = watch(&format!("{MAPS}/b")).await;
    let mut labelled =
        house.get(&format!("{MAPS}?watch=1&labelSelector=x%3Dy")).await.into_body().into_data_stream();
    house.ask("POST", MAPS, Some(map("a"))).await;
    let mut frames = Vec::new();
    for body in &mut same {
        frames.push(body.next().await.unwrap().unwrap());
    }
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the same bytes, not equal ones");
    assert_eq!(next_line(&mut everywhere).await.unwrap()["object"]["metadata"]["name"], "a");
    house.ask("POST", MAPS, Some(map("b"))).await;
    assert_eq!(next_line(&mut selected).await.unwrap()["object"]["metadata"]["name"], "b");
    let path = format!("{MAPS}/a");
    for (label, kind) in [("y", "ADDED"), ("z", "DELETED")] {
        house.ask("PATCH", &path, Some(json!({"metadata": {"labels": {"x": label}}}))).await;
        assert_eq!(next_line(&mut labelled).await.unwrap()["type"], kind);
    }
}

#[tokio::test]
async fn a_watch_that_fell_behind_catches_up_from_the_history() {
    let house = House::new().await;
    let mut body = house.get(&format!("{MAPS}?watch=1")).await.into_body().into_data_stream();
    const CHANGES: usize = 3000;
    for n in 0..CHANGES {
        let key = objects::key("", "configmaps", "default", &format!("m{n}"));
        house.store.txn(store::Txn::put(key, map("m").to_string())).await.unwrap();
        // The server takes note of each, and keeps but the last ones for its watches.
        tokio::task::yield_now().await;
    }
    let mut seen = 0;
    while seen < CHANGES {
        let chunk = body.next().await.unwrap().unwrap();
        seen += chunk.iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(seen, CHANGES);
}

#[tokio::test]
async fn metrics_count_what_was_asked() {
    let house = House::new().await;
    house.ask("POST", MAPS, Some(map("a"))).await;
    house.ask("GET", &format!("{MAPS}/none"), None).await;
    let _watch = house.get(&format!("{MAPS}?watch=1")).await;
    let told = text(house.get("/metrics").await).await;
    for line in [
        r#"apiserver_request_total{verb="POST",group="",version="v1",resource="configmaps",subresource="",scope="namespace",component="apiserver",code="201"} 1"#,
        r#"resource="configmaps",subresource="",scope="resource",component="apiserver",code="404"} 1"#,
        r#"apiserver_longrunning_requests{verb="WATCH"} 1"#,
        r#"apiserver_storage_objects{resource="configmaps"} 1"#,
        r#"component="apiserver",le="+Inf"} 1"#,
        "holdfast_store_has_leader 1",
        "measured_elsewhere 7",
    ] {
        assert!(told.contains(line), "{line} is not in:\n{told}");
    }
    house.ask("POST", MAPS, Some(map("b"))).await;
    house.ask("POST", MAPS, Some(map("c"))).await;
    house.ask("DELETE", &format!("{MAPS}/a"), None).await;
    let told = text(house.get("/metrics").await).await;
    assert!(told.contains(r#"apiserver_storage_objects{resource="configmaps"} 2"#), "{told}");
}

#[tokio::test]
async fn nobody_and_strangers_get_nothing() {
    let house = House::new().await;
    for path in ["/api/v1/nodes", "/version", "/metrics", "/apis", "/nothing"] {
        let request = Request::get(path).body(body_of("")).unwrap();
        assert_eq!(house.server.handle(request, None).await.status(), 401, "{path}");
    }
    let stranger = UserInfo::new("stranger", ["people"]);
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
        "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]informer-sync ok\n[+]shutdown ok\nreadyz check passed\n"
    );
    let without = text(house.get("/livez?verbose&exclude=log&exclude=cats").await).await;
    assert!(without.contains("[+]log excluded: ok") && without.contains("[\"cats\"]"), "{without}");
    assert_eq!(text(house.get("/readyz/etcd").await).await, "ok");
    assert_eq!(house.get("/readyz/nothing").await.status(), 404);
    let (_, version) = house.ask("GET", "/version", None).await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.2+holdfast"));
}

#[test]
fn what_takes_long_is_done_beside_those_who_answer_others() {
    // A thread that does something long leaves its other tasks to a thread more.
    let threads = Arc::new(AtomicUsize::new(0));
    let started = threads.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || {
            started.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    let house = Arc::new(runtime.block_on(House::new()));
    let ask = |method: &'static str, path: &str, body: Option<Value>| {
        let (house, path) = (house.clone(), path.to_owned());
        runtime.block_on(runtime.spawn(async move { house.ask(method, &path, body).await })).unwrap()
    };
    let map = |name: &str, text: &str| {
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "data": {"text": text}})
    };
    let put = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let mut object = map(&format!("m{number:04}"), "");
            let odd = if number % 300 == 7 { "yes" } else { "no" };
            object["metadata"]["labels"] = json!({"odd": odd});
            let key = objects::key("", "configmaps", "default", &format!("m{number:04}"));
            runtime.block_on(house.store.txn(store::Txn::put(key, object.to_string()))).unwrap();
        }
    };
    let selected = format!("{MAPS}?labelSelector=odd%3Dyes&limit=3");
    put(0..900);
    assert_eq!(ask("GET", &selected, None).0, 200);
    assert_eq!(ask("POST", MAPS, Some(map("small", &"x".repeat(60_000)))).0, 201);
    assert_eq!(ask("PATCH", &format!("{MAPS}/small"), Some(json!({"data": {"more": "1"}}))).0, 200);
    assert_eq!(threads.load(Ordering::SeqCst), 1, "what is short needs no other thread");

    put(900..1500);
    let (code, first) = ask("GET", &selected, None);
    until_two(&threads, "a long list");
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((code, names(&first)), (200, ["m0007", "m0307", "m0607"].map(str::to_owned).to_vec()));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = ask("GET", &format!("{selected}&continue={token}"), None);
    assert_eq!((code, names(&rest)), (200, ["m0907", "m1207"].map(str::to_owned).to_vec()));
}

/// Waits until a second thread has started: the one that was asked for may not run yet.
fn until_two(threads: &AtomicUsize, what: &str) {
    for _ in 0..1_000_000 {
        if threads.load(Ordering::SeqCst) == 2 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{what} had no thread of its own");
}

#[test]
fn large_changes_are_worked_on_beside_those_who_answer_others() {
    let threads = Arc::new(AtomicUsize::new(0));
    let house = || {
        let (started, threads) = (threads.clone(), threads.clone());
        threads.store(0, Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                started.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let house = Arc::new(runtime.block_on(House::new()));
        (runtime, house)
    };
    let large = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "large", "namespace": "default"},
        "data": {"text": "x".repeat(70_000)}});
    let one = format!("{MAPS}/large");
    let asked: [(&str, &str, Option<Value>, u16); 4] = [
        ("POST", MAPS, Some(large.clone()), 201),
        ("PUT", &one, Some(large.clone()), 200),
        // Only what is changed is large.
        ("PATCH", &one, Some(json!({"data": {"more": "1"}})), 200),
        ("DELETE", &one, None, 200),
    ];
    for (method, path, body, wanted) in asked {
        let (runtime, house) = house();
        if method != "POST" {
            let key = objects::key("", "configmaps", "default", "large");
            let mut stored = large.clone();
            stored["metadata"]["uid"] = json!("u");
            runtime.block_on(house.store.txn(store::Txn::put(key, stored.to_string()))).unwrap();
        }
        assert_eq!(threads.load(Ordering::SeqCst), 1);
        let path = path.to_owned();
        let answer = runtime.spawn(async move { house.ask(method, &path, body).await });
        let (code, answer) = runtime.block_on(answer).unwrap();
        assert_eq!(code, wanted, "{method}: {answer}");
        until_two(&threads, method);
    }
}
