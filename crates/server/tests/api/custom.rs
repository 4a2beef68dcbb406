//! Custom resources: what a definition adds while the server runs.

use std::time::Duration;

use http::Request;
use serde_json::{Value, json};

use crate::house::{House, admin, body_of, text};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn version(name: &str, storage: bool, spec: Value) -> Value {
    json!({
        "name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
    })
}

fn definition(versions: &[Value]) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wi"], "categories": ["all"]},
        },
    })
}

fn sized() -> Value {
    json!({"type": "object", "properties": {"size": {"type": "integer"}, "color": {"type": "string", "default": "red"}}})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Time is paused: it goes on once the server has nothing left to do by itself.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn house(versions: &[Value]) -> House {
    let house = House::new().await;
    let (code, answer) = house.ask("POST", DEFINITIONS, Some(definition(versions))).await;
    assert_eq!(code, 201, "{answer}");
    settle().await;
    house
}

async fn done(house: &House, method: &str, path: &str, body: Option<Value>) -> Value {
    let (code, answer) = house.ask(method, path, body).await;
    assert!((200..300).contains(&code), "{method} {path}: {answer}");
    answer
}

/// Changes the definition's versions.
async fn redefine(house: &House, versions: &[Value]) {
    let path = format!("{DEFINITIONS}/widgets.example.com");
    done(house, "PATCH", &path, Some(json!({"spec": {"versions": versions}}))).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_served_as_soon_as_it_is_established() {
    let house = House::new().await;
    assert_eq!(house.ask("GET", WIDGETS, None).await.0, 404);
    done(&house, "POST", DEFINITIONS, Some(definition(&[version("v1", true, sized())]))).await;
    settle().await;
    let list = done(&house, "GET", WIDGETS, None).await;
    assert_eq!((&list["kind"], &list["items"]), (&json!("WidgetList"), &json!([])));

    let groups = done(&house, "GET", "/apis", None).await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "example.com"));
    let resources = done(&house, "GET", "/apis/example.com/v1", None).await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wi"]));
    let service =
        done(&house, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com", None).await;
    assert_eq!(service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");

    let index = done(&house, "GET", "/openapi/v3", None).await;
    assert!(index["paths"]["apis/example.com/v1"]["serverRelativeURL"].is_string());
    let document = done(&house, "GET", "/openapi/v3/apis/example.com/v1", None).await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert!(document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    let one = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"];
    assert!(one["patch"].is_object());
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_is_read_as_the_newest_schema_has_it() {
    let house = house(&[version("v1", true, sized())]).await;
    done(&house, "POST", WIDGETS, Some(widget("a", json!({"size": 1})))).await;
    let newer = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "shape": {"type": "string", "default": "round"},
    }});
    redefine(&house, &[version("v1", true, newer)]).await;
    let path = format!("{WIDGETS}/a");
    let expected = json!({"size": 1, "shape": "round"});
    assert_eq!(
        done(&house, "GET", &path, None).await["spec"],
        expected,
        "color is gone, shape has its default"
    );
    assert_eq!(done(&house, "GET", WIDGETS, None).await["items"][0]["spec"], expected);
    let patched = done(&house, "PATCH", &path, Some(json!({"spec": {"size": 2}}))).await;
    assert_eq!(patched["spec"], json!({"size": 2, "shape": "round"}));
}

#[tokio::test(start_paused = true)]
async fn versions_show_the_same_objects() {
    let house = house(&[version("v1beta1", false, sized()), version("v1", true, sized())]).await;
    let group = done(&house, "GET", "/apis/example.com", None).await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let old = WIDGETS.replace("v1", "v1beta1");
    let mut given = widget("a", json!({"size": 1}));
    given["apiVersion"] = json!("example.com/v1beta1");
    assert_eq!(done(&house, "POST", &old, Some(given)).await["apiVersion"], "example.com/v1beta1");
    assert_eq!(done(&house, "GET", WIDGETS, None).await["items"][0]["apiVersion"], "example.com/v1");
    let one = done(&house, "GET", &format!("{old}/a"), None).await;
    assert_eq!(one["apiVersion"], "example.com/v1beta1");
    let changed = done(&house, "PUT", &format!("{old}/a"), Some(one)).await;
    assert_eq!(changed["metadata"]["generation"], 1, "nothing changed");

    let watch = house.get(&format!("{old}?watch=1&timeoutSeconds=1&resourceVersion=0")).await;
    let events = text(watch).await;
    assert!(
        events.starts_with(r#"{"type":"ADDED","object":{"kind":"Widget","apiVersion":"example.com/v1beta1""#),
        "{events}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_has_what_its_schema_has() {
    let only_new = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "shape": {"type": "string"}, "edge": {"type": "string", "default": "sharp"},
    }});
    let house = house(&[version("v1beta1", false, only_new), version("v1", true, sized())]).await;
    let old = WIDGETS.replace("v1", "v1beta1");
    let mut given = widget("a", json!({"size": 1, "shape": "round"}));
    given["apiVersion"] = json!("example.com/v1beta1");
    // What the stored version lacks is lost, and the answer says so; defaults are those of the version that it lies in.
    let created = done(&house, "POST", &old, Some(given)).await;
    assert_eq!(created["spec"], json!({"size": 1}));
    let one = done(&house, "GET", &format!("{WIDGETS}/a"), None).await;
    assert_eq!(one["spec"], json!({"size": 1, "color": "red"}));
    let one = done(&house, "GET", &format!("{old}/a"), None).await;
    assert_eq!(one["spec"], json!({"size": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_scale_can_be_set_before_it_can_be_read() {
    let mut scaled =
        version("v1", true, json!({"type": "object", "properties": {"replicas": {"type": "integer"}}}));
    scaled["subresources"]["scale"] =
        json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    let house = house(&[scaled]).await;
    done(&house, "POST", WIDGETS, Some(widget("a", json!({})))).await;
    let path = format!("{WIDGETS}/a/scale");
    let (code, answer) = house.ask("GET", &path, None).await;
    let told = "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist";
    assert_eq!((code, answer["message"].as_str()), (500, Some(told)));
    let (code, answer) = house.ask("PATCH", &path, Some(json!({"metadata": {"labels": {"a": "b"}}}))).await;
    let told = "the spec replicas field \".spec.replicas\" cannot be empty";
    assert_eq!((code, answer["message"].as_str()), (400, Some(told)));
    let set = done(&house, "PATCH", &path, Some(json!({"spec": {"replicas": 0}}))).await;
    assert_eq!(set["kind"], "Scale");
    assert_eq!(done(&house, "GET", &format!("{WIDGETS}/a"), None).await["spec"], json!({"replicas": 0}));
    let mut other = done(&house, "GET", &path, None).await;
    other["spec"] = json!({"replicas": 3});
    other["metadata"]["uid"] = json!("another");
    assert_eq!(house.ask("PUT", &path, Some(other)).await.0, 409);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_object_moves_to_the_version_that_is_stored_now() {
    let house = house(&[version("v1beta1", false, sized()), version("v1", true, sized())]).await;
    let one = done(&house, "POST", WIDGETS, Some(widget("a", json!({"size": 1})))).await;
    redefine(&house, &[version("v1beta1", true, sized()), version("v1", false, sized())]).await;
    let (path, definition) = (format!("{WIDGETS}/a"), format!("{DEFINITIONS}/widgets.example.com"));
    let again = done(&house, "PUT", &path, Some(one.clone())).await;
    assert_ne!(again["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"], "written anew");
    assert_eq!(again["apiVersion"], "example.com/v1");
    let once_more = done(&house, "PUT", &path, Some(again.clone())).await;
    assert_eq!(once_more["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    // Nothing lies in the old version any more, so that it may go.
    let stored = json!({"status": {"storedVersions": ["v1beta1"]}});
    done(&house, "PATCH", &format!("{definition}/status"), Some(stored)).await;
    redefine(&house, &[version("v1beta1", true, sized())]).await;
    let one = done(&house, "GET", &format!("{}/a", WIDGETS.replace("v1", "v1beta1")), None).await;
    assert_eq!(one["spec"]["size"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_published_within_a_second() {
    let house = House::new().await;
    done(&house, "POST", DEFINITIONS, Some(definition(&[version("v1", true, sized())]))).await;
    let everywhere = async {
        let size = "/properties/spec/properties/size/type";
        loop {
            let discovery = house.ask("GET", "/apis/example.com/v1", None).await.1;
            let third = house.ask("GET", "/openapi/v3/apis/example.com/v1", None).await.1;
            let second = house.ask("GET", "/openapi/v2", None).await.1;
            let in_third = third.pointer(&format!("/components/schemas/com.example.v1.Widget{size}"));
            let in_second = second.pointer(&format!("/definitions/com.example.v1.Widget{size}"));
            let integer = Some(&json!("integer"));
            if discovery["resources"][0]["kind"] == "Widget" && (in_third, in_second) == (integer, integer) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // The server's own time: nothing else passes here.
    tokio::time::timeout(Duration::from_secs(1), everywhere).await.expect("published everywhere");
}

#[tokio::test(start_paused = true)]
async fn a_definition_goes_after_its_objects() {
    let house = house(&[version("v1", true, sized())]).await;
    let mut kept = widget("kept", json!({}));
    kept["metadata"]["finalizers"] = json!(["example.com/hold"]);
    done(&house, "POST", WIDGETS, Some(kept)).await;
    done(&house, "POST", WIDGETS, Some(widget("plain", json!({})))).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    done(&house, "DELETE", &path, None).await;
    settle().await;
    let list = done(&house, "GET", WIDGETS, None).await;
    let names: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|o| &o["metadata"]["name"]).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(house.ask("POST", WIDGETS, Some(widget("new", json!({})))).await.0, 405);
    let going = done(&house, "GET", &path, None).await;
    let conditions = going["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|c| c["type"] == "Terminating" && c["reason"] == "InstanceDeletionInProgress")
    );

    let free = json!({"metadata": {"finalizers": null}});
    done(&house, "PATCH", &format!("{WIDGETS}/kept"), Some(free)).await;
    settle().await;
    assert_eq!(house.ask("GET", &path, None).await.0, 404);
    assert_eq!(house.ask("GET", WIDGETS, None).await.0, 404);
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com";
    assert_eq!(house.ask("GET", service, None).await.0, 404);
    // A new one of the same name starts with nothing.
    done(&house, "POST", DEFINITIONS, Some(definition(&[version("v1", true, sized())]))).await;
    settle().await;
    assert_eq!(done(&house, "GET", WIDGETS, None).await["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn names_that_are_taken_keep_a_kind_from_being_served() {
    let house = house(&[version("v1", true, sized())]).await;
    let mut other = definition(&[version("v1", true, sized())]);
    other["metadata"]["name"] = json!("gizmos.example.com");
    other["spec"]["names"] = json!({"plural": "gizmos", "kind": "Widget"});
    done(&house, "POST", DEFINITIONS, Some(other)).await;
    settle().await;
    let path = format!("{DEFINITIONS}/gizmos.example.com");
    let status = done(&house, "GET", &path, None).await["status"].clone();
    assert_eq!(status["conditions"][0]["reason"], "ListKindConflict");
    assert_eq!(house.ask("GET", &WIDGETS.replace("widgets", "gizmos"), None).await.0, 404);
    done(&house, "DELETE", &format!("{DEFINITIONS}/widgets.example.com"), None).await;
    settle().await;
    assert_eq!(house.ask("GET", &WIDGETS.replace("widgets", "gizmos"), None).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn fields_select_and_columns_show() {
    let mut with_columns = version("v1", true, sized());
    with_columns["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    with_columns["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
    ]);
    let house = house(&[with_columns]).await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        done(&house, "POST", WIDGETS, Some(widget(name, json!({"size": 3, "color": color})))).await;
    }
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let with_status = done(&house, "PATCH", &format!("{WIDGETS}/b/status"), Some(status)).await;
    assert_eq!(with_status["metadata"]["generation"], 1);
    let list = done(&house, "GET", &format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"), None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(house.ask("GET", &format!("{WIDGETS}?fieldSelector=spec.size%3D3"), None).await.0, 400);
    let request = Request::get(format!("{WIDGETS}/b"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(body_of(""))
        .unwrap();
    let table = house.server.handle(request, Some(admin())).await;
    let table: Value = serde_json::from_str(&text(table).await).unwrap();
    assert_eq!(table["columnDefinitions"][3]["priority"], 1);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("b"), json!(3), json!("True")]);
    assert!(cells[3].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_change_answers_for_what_it_changes_only() {
    let house = house(&[version("v1", true, sized())]).await;
    done(&house, "POST", WIDGETS, Some(widget("a", json!({"size": 1, "color": "green"})))).await;
    let stricter = json!({"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 5},
        "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
    }});
    redefine(&house, &[version("v1", true, stricter)]).await;
    let path = format!("{WIDGETS}/a");
    done(&house, "PATCH", &path, Some(json!({"spec": {"size": 2}}))).await;
    for (spec, field) in [(json!({"size": 6}), "spec.size"), (json!({"color": "black"}), "spec.color")] {
        let (code, answer) = house.ask("PATCH", &path, Some(json!({"spec": spec}))).await;
        assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    let (code, answer) = house.ask("PATCH", &path, Some(json!({"spec": {"size": "x"}}))).await;
    assert_eq!(code, 422);
    let message = answer["message"].as_str().unwrap();
    let expected = r#"Widget.example.com "a" is invalid: spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#;
    assert_eq!(message, expected);
}

#[tokio::test(start_paused = true)]
async fn what_defaults_add_to_an_object_is_bounded() {
    let wide: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (format!("p{n}"), json!({"type": "string", "default": "x"}))).collect();
    let spec = json!({"type": "object", "properties": {"list": {"type": "array",
        "items": {"type": "object", "properties": wide}}}});
    let house = house(&[version("v1", true, spec)]).await;
    let list = |count: usize| json!({ "list": vec![json!({}); count] });
    let (code, status) = house.ask("POST", WIDGETS, Some(widget("many", list(500)))).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")), "{status}");
    // An update and a patch are no other way, and what was made stays as it was.
    let made = done(&house, "POST", WIDGETS, Some(widget("one", list(1)))).await;
    assert_eq!(made["spec"]["list"][0].as_object().unwrap().len(), 10_000);
    let path = format!("{WIDGETS}/one");
    assert_eq!(house.ask("PATCH", &path, Some(json!({"spec": list(500)}))).await.0, 413);
    assert_eq!(done(&house, "GET", &path, None).await["spec"], made["spec"]);
}
