//! Conversion webhooks: every read and every write in another version than the one in which objects lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::{KeyRange, Store};
use tokio::sync::Notify;

use crate::hooks::{Hook, patched};
use crate::house::{House, admin, body_of, text};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// `spec.address`, such as `a:1`.
pub const V1: &str = "/apis/example.com/v1/namespaces/default/doors";
/// `spec.host` and `spec.port`.
pub const V2: &str = "/apis/example.com/v2/namespaces/default/doors";

pub fn version(name: &str, storage: bool) -> Value {
    let spec = match name {
        "v1" => json!({"type": "object", "properties": {"address": {"type": "string"}}}),
        _ => {
            json!({"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "integer"}}})
        }
    };
    json!({
        "name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    })
}

pub fn definition(config: &Value, stored: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "doors.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "doors", "kind": "Door"},
            "versions": [version("v1", stored == "v1"), version("v2", stored == "v2")],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": config, "conversionReviewVersions": ["v1"],
            }},
        },
    })
}

/// What the webhook makes of an object.
fn converted(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(wanted);
    let spec = &object["spec"];
    object["spec"] = match (wanted, spec["address"].as_str().and_then(|text| text.split_once(':'))) {
        ("example.com/v2", Some((host, port))) => json!({"host": host, "port": port.parse::<u16>().unwrap()}),
        ("example.com/v1", _) if spec["host"].is_string() => {
            json!({"address": format!("{}:{}", spec["host"].as_str().unwrap(), spec["port"])})
        }
        _ => json!({}),
    };
    // Not its business, and not taken over.
    object["metadata"]["finalizers"] = json!(["example.com/sneaked-in"]);
    object["metadata"]["annotations"]["seen"] = json!("yes");
    object
}

pub fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    assert!(objects.iter().all(|object| object["apiVersion"] != wanted), "{request}");
    let objects: Vec<Value> = objects.iter().map(|object| converted(object, wanted)).collect();
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": {
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects,
    }})
}

pub fn door(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Door",
        "metadata": {"name": name, "labels": {"name": name}}, "spec": spec})
}

pub async fn done(house: &House, method: &str, path: &str, body: Option<Value>) -> Value {
    let (code, answer) = house.ask(method, path, body).await;
    assert!((200..300).contains(&code), "{method} {path}: {answer}");
    answer
}

/// Asks until the answer is as wanted: definitions are looked after in their own time.
pub async fn until(house: &House, path: &str, wanted: impl Fn(u16, &Value) -> bool) {
    let asking = async {
        loop {
            let (code, answer) = house.ask("GET", path, None).await;
            if wanted(code, &answer) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the definition is looked after");
}

pub async fn house(hook: &Hook) -> House {
    let house = House::new().await;
    done(&house, "POST", DEFINITIONS, Some(definition(&hook.config(), "v1"))).await;
    until(&house, V1, |code, _| code == 200).await;
    house
}

/// Points the definition at another webhook, or to none that answers.
pub async fn redirect(house: &House, config: &Value, stored: &str) {
    let spec = definition(config, stored)["spec"].clone();
    done(house, "PATCH", &format!("{DEFINITIONS}/doors.example.com"), Some(json!({ "spec": spec }))).await;
}

fn stored(house: &House, name: &str) -> Value {
    let key = format!("{}{name}", objects::namespace_prefix("example.com", "doors", "default"));
    serde_json::from_slice(&house.store.snapshot().get(key.as_bytes()).unwrap().value.bytes()).unwrap()
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    assert_eq!(hook.count(), 0, "nothing to convert");

    let one = done(&house, "GET", &format!("{V2}/a"), None).await;
    assert_eq!(
        (&one["apiVersion"], &one["spec"]),
        (&json!("example.com/v2"), &json!({"host": "a", "port": 1}))
    );
    assert_eq!(
        (&one["metadata"]["annotations"]["seen"], &one["metadata"]["finalizers"]),
        (&json!("yes"), &Value::Null)
    );
    done(&house, "GET", &format!("{V2}/a"), None).await;
    assert_eq!(hook.count(), 1, "it is known by now");

    let created =
        done(&house, "POST", V2, Some(door("v2", "b", json!({"host": "b", "port": 2, "odd": 1})))).await;
    assert_eq!(
        (&created["apiVersion"], &created["spec"]),
        (&json!("example.com/v2"), &json!({"host": "b", "port": 2}))
    );
    let lies = stored(&house, "b");
    assert_eq!((&lies["apiVersion"], &lies["spec"]), (&json!("example.com/v1"), &json!({"address": "b:2"})));
    let read = done(&house, "GET", &format!("{V2}/b"), None).await;
    assert_eq!(created, read, "the answer to a write is what a read shows");

    let patched = done(&house, "PATCH", &format!("{V2}/a"), Some(json!({"spec": {"port": 7}}))).await;
    assert_eq!((&patched["spec"]["port"], &patched["metadata"]["generation"]), (&json!(7), &json!(2)));
    assert_eq!(stored(&house, "a")["spec"]["address"], "a:7");
    let mut replaced = done(&house, "GET", &format!("{V2}/a"), None).await;
    replaced["spec"] = json!({"host": "c", "port": 8});
    done(&house, "PUT", &format!("{V2}/a"), Some(replaced)).await;
    let status = json!({"status": {"open": true}});
    done(&house, "PATCH", &format!("{V1}/a/status"), Some(status)).await;
    assert_eq!(done(&house, "GET", &format!("{V1}/a"), None).await["spec"]["address"], "c:8");

    // Defaults, checks and messages are those of the version that was asked.
    let (code, refused) = house.ask("POST", V2, Some(door("v2", "x", json!({"port": "no"})))).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("spec.port")), "{refused}");
    assert_eq!(done(&house, "DELETE", V2, None).await["items"].as_array().unwrap().len(), 2);
    assert_eq!(done(&house, "GET", V1, None).await["items"], json!([]));
}

#[tokio::test]
async fn a_list_asks_once_for_many_and_only_for_what_it_shows() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    for number in 10..40 {
        done(
            &house,
            "POST",
            V1,
            Some(door("v1", &format!("d{number}"), json!({"address": format!("d:{number}")}))),
        )
        .await;
    }
    let page = done(&house, "GET", &format!("{V2}?limit=7"), None).await;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["metadata"]["remainingItemCount"]),
        (7, &json!(23))
    );
    assert_eq!(hook.last()["objects"].as_array().unwrap().len(), 7);
    let list = done(&house, "GET", V2, None).await;
    let ports: Vec<u64> =
        list["items"].as_array().unwrap().iter().map(|o| o["spec"]["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, (10..40).collect::<Vec<u64>>());
    assert_eq!(
        (hook.count(), hook.last()["objects"].as_array().unwrap().len()),
        (2, 23),
        "the others were known"
    );
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = done(&house, "GET", &format!("{V2}?limit=7&continue={token}"), None).await;
    assert_eq!(rest["items"][0]["spec"]["port"], 17);
    let some = done(&house, "GET", &format!("{V2}?labelSelector=name%20in%20(d12,d39)"), None).await;
    assert_eq!(some["items"].as_array().unwrap().len(), 2);
    assert_eq!(hook.count(), 2);
}

/// The lines of a watch, one after the other.
struct Lines {
    body: server::Body,
    rest: Vec<u8>,
}

impl Lines {
    async fn of(house: &House, path: &str) -> Self {
        let response = house.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        Lines { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.expect("an event");
            self.rest.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }
}

#[tokio::test]
async fn many_watches_of_a_version_ask_once_for_a_change() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(Lines::of(&house, &format!("{V2}?watch=1&resourceVersion=0")).await);
    }
    done(&house, "PATCH", &format!("{V1}/a"), Some(json!({"spec": {"address": "a:2"}}))).await;
    done(&house, "DELETE", &format!("{V1}/a"), None).await;
    let all = watches.iter_mut().map(|watch| async move {
        for (kind, port) in [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)] {
            let event = watch.next().await.unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["spec"]["port"]),
                (&json!(kind), &json!(port)),
                "{event}"
            );
            assert_eq!(event["object"]["apiVersion"], "example.com/v2");
        }
    });
    futures::future::join_all(all).await;
    assert!(hook.count() <= 3, "asked {} times for two values", hook.count());
}

#[tokio::test]
async fn requests_at_the_same_time_share_one_question() {
    let gate = Arc::new(Notify::new());
    let hook = Hook::reviewing(answer, Some(gate.clone())).await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    let path = format!("{V2}/a");
    let asking = (0..50).map(|_| house.ask("GET", &path, None));
    let opening = async {
        while hook.count() == 0 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(asking), opening);
    assert!(answers.iter().all(|(code, door)| *code == 200 && door["spec"]["port"] == 1));
    assert_eq!(hook.count(), 1);
}

/// A webhook that fails while its flag is set.
pub async fn moody() -> (Hook, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let reviewed = move |review: &Value| {
        let mut answer = answer(review);
        if failing.load(Ordering::Relaxed) {
            answer["response"]["result"] = json!({"status": "Failed", "message": "not in the mood"});
        }
        answer
    };
    (Hook::reviewing(reviewed, None).await, fails)
}

#[tokio::test]
async fn without_its_webhook_nothing_looks_converted() {
    let (hook, fails) = moody().await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    let mut watch = Lines::of(&house, &format!("{V2}?watch=1&resourceVersion=0")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["spec"]["port"], 1);
    fails.store(true, Ordering::Relaxed);
    done(&house, "PATCH", &format!("{V1}/a"), Some(json!({"spec": {"address": "a:2"}}))).await;
    let told = "conversion webhook for example.com/v1, Kind=Door failed: not in the mood";
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["message"]), (&json!("ERROR"), &json!(told)));
    assert!(watch.next().await.is_none(), "and that was the end");
    let asked = [
        ("GET", format!("{V2}/a"), None),
        ("GET", V2.to_owned(), None),
        ("GET", format!("{V2}?watch=1&resourceVersion=0"), None),
        ("PATCH", format!("{V2}/a"), Some(json!({"spec": {"port": 3}}))),
        ("DELETE", format!("{V2}/a"), None),
        ("DELETE", V2.to_owned(), None),
    ];
    for (method, path, body) in asked {
        let (code, answer) = house.ask(method, &path, body).await;
        assert_eq!((code, answer["message"].as_str()), (500, Some(told)), "{method} {path}");
    }
    let (code, answer) = house.ask("POST", V2, Some(door("v2", "b", json!({"host": "b"})))).await;
    let told = "conversion webhook for example.com/v2, Kind=Door failed: not in the mood";
    assert_eq!((code, answer["message"].as_str()), (500, Some(told)));
    assert_eq!(
        done(&house, "GET", V1, None).await["items"].as_array().unwrap().len(),
        1,
        "nothing was stored"
    );

    // Nobody there.
    let nobody = json!({"url": "https://127.0.0.1:1/x", "caBundle": hook.bundle});
    redirect(&house, &nobody, "v1").await;
    let (code, answer) = house.ask("GET", &format!("{V2}/a"), None).await;
    let message = answer["message"].as_str().unwrap();
    let begin = "conversion webhook for example.com/v1, Kind=Door failed: Post \"https://127.0.0.1:1/x?timeout=30s\": ";
    assert!(code == 500 && message.starts_with(begin), "{message}");
    // Once a webhook answers again, everything is there.
    fails.store(false, Ordering::Relaxed);
    redirect(&house, &hook.config(), "v1").await;
    assert_eq!(done(&house, "GET", &format!("{V2}/a"), None).await["spec"]["port"], 2);
}

#[tokio::test]
async fn another_version_can_become_the_stored_one() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    done(&house, "POST", V1, Some(door("v1", "old", json!({"address": "a:1"})))).await;
    redirect(&house, &hook.config(), "v2").await;
    done(&house, "POST", V1, Some(door("v1", "new", json!({"address": "b:2"})))).await;
    assert_eq!(stored(&house, "new")["spec"], json!({"host": "b", "port": 2}));
    assert_eq!(stored(&house, "old")["apiVersion"], "example.com/v1");
    for (path, field) in [(V1, "/spec/address"), (V2, "/spec/port")] {
        let list = done(&house, "GET", path, None).await;
        assert!(list["items"].as_array().unwrap().iter().all(|door| door.pointer(field).is_some()), "{list}");
    }
    // A change that changes nothing moves it, in whichever version.
    let old = done(&house, "GET", &format!("{V1}/old"), None).await;
    done(&house, "PUT", &format!("{V1}/old"), Some(old)).await;
    assert_eq!(stored(&house, "old")["apiVersion"], "example.com/v2");
    let path = format!("{DEFINITIONS}/doors.example.com");
    assert_eq!(done(&house, "GET", &path, None).await["status"]["storedVersions"], json!(["v1", "v2"]));
    // The end of the definition is the end of all of them, whichever version they lie in.
    done(&house, "DELETE", &path, None).await;
    until(&house, &path, |code, _| code == 404).await;
    let range = KeyRange::prefix(objects::kind_prefix("example.com", "doors"));
    assert_eq!(house.store.snapshot().range(&range).count(), 0);
}

#[tokio::test]
async fn an_older_webhook_is_asked_in_its_own_version() {
    let hook = Hook::reviewing(
        |review| {
            assert_eq!(review["apiVersion"], "apiextensions.k8s.io/v1beta1");
            let mut answer = answer(review);
            answer["response"]["uid"] = Value::Null;
            answer
        },
        None,
    )
    .await;
    let house = house(&hook).await;
    let older = json!({"spec": {"conversion": {"webhook": {"conversionReviewVersions": ["v1beta1"]}}}});
    done(&house, "PATCH", &format!("{DEFINITIONS}/doors.example.com"), Some(older)).await;
    done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    let request = Request::get(format!("{V2}/a")).body(body_of("")).unwrap();
    let one = text(house.server.handle(request, Some(admin())).await).await;
    assert!(one.starts_with(r#"{"kind":"Door","apiVersion":"example.com/v2","metadata":{"#), "{one}");
}

#[tokio::test]
async fn a_webhook_gets_the_version_that_its_rules_name() {
    let hook = Hook::reviewing(answer, None).await;
    let house = house(&hook).await;
    let admission = Hook::new(|request| {
        assert_eq!(request["object"]["apiVersion"], "example.com/v2");
        patched(json!([
            {"op": "replace", "path": "/spec/port", "value": 8080}, {"op": "add", "path": "/spec/junk", "value": 1},
        ]))
    })
    .await;
    let rule = json!({"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["CREATE"], "resources": ["doors"]});
    let webhooks = json!({"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
    "metadata": {"name": "m"}, "webhooks": [{
        "name": "m.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": admission.config(), "rules": [rule], "matchPolicy": "Equivalent",
        "objectSelector": {"matchLabels": {"name": "a"}},
    }]});
    let place = "/apis/admissionregistration.k8s.io/v1";
    done(&house, "POST", &format!("{place}/mutatingwebhookconfigurations"), Some(webhooks)).await;
    let policy = json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1",
    "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [rule], "matchPolicy": "Equivalent"},
        "validations": [{"expression": "object.spec.port > 1000", "message": "no port of the system"}],
    }});
    done(&house, "POST", &format!("{place}/validatingadmissionpolicies"), Some(policy)).await;
    let binding = json!({"kind": "ValidatingAdmissionPolicyBinding", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    done(&house, "POST", &format!("{place}/validatingadmissionpolicybindings"), Some(binding)).await;

    let created = done(&house, "POST", V1, Some(door("v1", "a", json!({"address": "a:1"})))).await;
    assert_eq!(created["spec"], json!({"address": "a:8080"}), "changed in one version, made in another");
    assert_eq!(admission.last()["requestKind"]["version"], "v1");
    let (code, refused) = house.ask("POST", V1, Some(door("v1", "b", json!({"address": "b:80"})))).await;
    assert!(
        code == 422 && refused["message"].as_str().unwrap().ends_with("no port of the system"),
        "{refused}"
    );
    done(&house, "POST", V1, Some(door("v1", "b", json!({"address": "b:8080"})))).await;
    assert_eq!(admission.count(), 1);
}
