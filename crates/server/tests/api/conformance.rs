//! What upstream's conformance tests ask of the API that no pod is needed for (`test/e2e/apimachinery` and
//! `test/e2e/instrumentation` of Kubernetes).

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::conversion::{DEFINITIONS, done, until};
use crate::hooks::Hook;
use crate::house::{House, admin, body_of, text};

const NAMESPACE: &str = "/namespaces/default";

async fn send(house: &House, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(body_of(body.to_owned())).unwrap();
    let response = house.server.handle(request, Some(admin())).await;
    (response.status().as_u16(), text(response).await)
}

/// The message of a refusal.
async fn refused(house: &House, method: &str, path: &str, kind: &str, body: &str) -> String {
    let (code, answer) = send(house, method, path, kind, body).await;
    assert!(code >= 400, "{answer}");
    let status: Value = serde_json::from_str(&answer).unwrap();
    status["message"].as_str().unwrap().to_owned()
}

fn definition(plural: &str, kind: &str, scope: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.mygroup.example.com")},
        "spec": {
            "group": "mygroup.example.com", "scope": scope, "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Defines a kind; the path of its objects.
async fn define(house: &House, plural: &str, kind: &str, schema: Value) -> String {
    done(house, "POST", DEFINITIONS, Some(definition(plural, kind, "Cluster", schema))).await;
    let path = format!("/apis/mygroup.example.com/v1beta1/{plural}");
    until(house, &path, |code, _| code == 200).await;
    path
}

/// The schema of `spec` that the tests of fields use, and more properties of it.
fn spec(more: Value) -> Value {
    let mut spec = json!({"type": "object", "properties": {
        "foo": {"type": "string"}, "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"},
                "hostPort": {"type": "integer", "format": "int32"}, "name": {"type": "string"}, "protocol": {"type": "string"}}}},
    }});
    for (key, value) in more.as_object().unwrap() {
        match key.as_str() {
            "properties" => {
                spec["properties"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone())
            }
            _ => spec[key] = value.clone(),
        }
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

const APPLY: &str = "application/apply-patch+yaml";
const STRICT: &str = "mytest?fieldManager=field_validation_mgr&fieldValidation=Strict";

/// An object as the tests apply it: their texts begin with an empty line.
fn noxu(kind: &str, metadata: &str, root: &str, spec: &str) -> String {
    format!(
        "\napiVersion: mygroup.example.com/v1beta1\nkind: {kind}\nmetadata:\n  name: mytest\n{metadata}  finalizers:\n  - \
         test-finalizer\n{root}spec:\n{spec}  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP"
    )
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_typed_objects_are_detected() {
    let house = House::new().await;
    let deployment = |metadata: &str, spec: &str| {
        format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
            "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}},
                "template": {{"metadata": {{"labels": {{"app": "nginx"}}}},
                    "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
        )
    };
    let path = format!(
        "/apis/apps/v1{NAMESPACE}/deployments?fieldManager=field_validation_mgr&fieldValidation=Strict"
    );
    let twice = deployment("", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#);
    let why = refused(&house, "POST", &path, "application/json", &twice).await;
    let expected =
        r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(why.contains(expected), "{why}");
    let unknown = deployment(r#""unknownMeta": "foo","#, "");
    let why = refused(&house, "POST", &path, "application/json", &unknown).await;
    assert!(why.contains(r#"strict decoding error: unknown field "metadata.unknownMeta""#), "{why}");
    // Without a content type, as the tests send it.
    let request = Request::builder().method("POST").uri(&path).body(body_of(twice)).unwrap();
    let answer = text(house.server.handle(request, Some(admin())).await).await;
    assert!(answer.contains("duplicate field"), "{answer}");
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_custom_objects_are_detected() {
    let house = House::new().await;
    let path = define(&house, "noxus", "Noxu", spec(json!({}))).await;
    let path = format!("{path}/{STRICT}");
    let valid = noxu("Noxu", "", "", "  foo: foo1\n");
    let (code, answer) = send(&house, "PATCH", &path, APPLY, &valid).await;
    assert_eq!(code, 201, "{answer}");
    let unknown = noxu("Noxu", "", "unknownField: unknown\n", "  foo: foo1\n");
    let why = refused(&house, "PATCH", &path, APPLY, &unknown).await;
    assert!(why.contains(".unknownField: field not declared in schema"), "{why}");

    let preserving = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let path = define(&house, "anys", "Any", preserving).await;
    let path = format!("{path}/{STRICT}");
    let (code, answer) = send(&house, "PATCH", &path, APPLY, &noxu("Any", "", "", "  unknown: uk1\n")).await;
    assert_eq!(code, 201, "{answer}");

    let preserving = spec(json!({"x-kubernetes-preserve-unknown-fields": true}));
    let path = define(&house, "somes", "Some", preserving).await;
    let path = format!("{path}/{STRICT}");
    let twice = noxu("Some", "", "", "  unknown: uk1\n  foo: foo1\n  foo: foo2\n");
    let (code, answer) = send(&house, "PATCH", &path, APPLY, &twice).await;
    assert_eq!(code, 400, "{answer}");
    assert!(answer.contains(r#"line 11: key \"foo\" already set in map"#), "{answer}");

    let template = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}});
    let more = json!({"x-kubernetes-preserve-unknown-fields": true, "properties": {"template": template}});
    let path = define(&house, "embeds", "Embed", spec(more)).await;
    let path = format!("{path}/{STRICT}");
    let embedded = "  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n        \
                    name: subobject\n        namespace: default\n  foo: foo1\n";
    let unknown = noxu("Embed", "  unknownMeta: unknown\n", "", embedded);
    let why = refused(&house, "PATCH", &path, APPLY, &unknown).await;
    let of_both = [
        ".spec.template.metadata.unknownSubMeta: field not declared in schema",
        ".metadata.unknownMeta: field not declared in schema",
    ];
    assert!(of_both.iter().any(|fault| why.contains(fault)), "{why}");
}

/// `v1` has `hostPort`, `v2` has `host` and `port`.
fn converted(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    let map = object.as_object_mut().unwrap();
    map.insert("apiVersion".into(), json!(wanted));
    if wanted.ends_with("/v2") {
        if let Some(both) = map.remove("hostPort") {
            let both = both.as_str().unwrap();
            let (host, port) = both.split_once(':').unwrap_or((both, ""));
            map.extend([("host".to_owned(), json!(host)), ("port".to_owned(), json!(port))]);
        }
        return object;
    }
    let part =
        |part: Option<Value>| part.and_then(|part| part.as_str().map(str::to_owned)).unwrap_or_default();
    let (host, port) = (part(map.remove("host")), part(map.remove("port")));
    map.insert("hostPort".into(), json!(format!("{host}:{port}")));
    object
}

fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<Value> =
        request["objects"].as_array().unwrap().iter().map(|object| converted(object, wanted)).collect();
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": {
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects,
    }})
}

/// A watch, and what of it is not read yet.
struct Told {
    body: server::Body,
    held: Vec<u8>,
}

impl Told {
    async fn of(house: &House, path: &str) -> Self {
        let response = house.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        Told { body: response.into_body(), held: Vec::new() }
    }

    /// The next events: what happened to whom.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < count {
            let Some(end) = self.held.iter().position(|byte| *byte == b'\n') else {
                let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await;
                self.held.extend(frame.unwrap().unwrap().unwrap().into_data().unwrap());
                continue;
            };
            let line: Vec<u8> = self.held.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap();
            told.push(format!("{} {name}", event["type"].as_str().unwrap()));
        }
        told
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn custom_objects_are_selected_by_fields_of_each_version() {
    let hook = Hook::reviewing(convert, None).await;
    let house = House::new().await;
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> =
            fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        json!({"name": name, "served": true, "storage": name == "v1", "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let mut definition = definition("selects", "Select", "Namespaced", json!({"type": "object"}));
    definition["spec"]["versions"] = json!([version("v1", &["hostPort"]), version("v2", &["host", "port"])]);
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": hook.config(), "conversionReviewVersions": ["v1", "v1beta1"]}});
    done(&house, "POST", DEFINITIONS, Some(definition)).await;
    let [v1, v2] =
        ["v1", "v2"].map(|version| format!("/apis/mygroup.example.com/{version}{NAMESPACE}/selects"));
    until(&house, &v2, |code, _| code == 200).await;

    let mut by_host = Told::of(&house, &format!("{v2}?watch=1&fieldSelector=host%3Dhost1")).await;
    let mut by_both = Told::of(&house, &format!("{v2}?watch=1&fieldSelector=host%3Dhost1,port%3D80")).await;
    let mut by_pair = Told::of(&house, &format!("{v1}?watch=1&fieldSelector=hostPort%3Dhost1:80")).await;
    for (name, host, port) in [("a", "host1", Some("80")), ("b", "host1", Some("8080")), ("c", "host2", None)]
    {
        let mut object = json!({"apiVersion": "mygroup.example.com/v2", "kind": "Select",
            "metadata": {"name": name, "namespace": "default"}, "host": host});
        if let Some(port) = port {
            object["port"] = json!(port);
        }
        done(&house, "POST", &v2, Some(object)).await;
    }
    for (path, selector, expected) in [
        (&v2, "host%3Dhost1", vec!["a", "b"]),
        (&v2, "host%3Dhost1,port%3D80", vec!["a"]),
        (&v1, "hostPort%3Dhost1:80", vec!["a"]),
        (&v1, "hostPort%3Dhost1:8080", vec!["b"]),
    ] {
        let list = done(&house, "GET", &format!("{path}?fieldSelector={selector}"), None).await;
        assert_eq!(names(&list), expected, "{selector}");
    }
    let (code, status) = house.ask("GET", &format!("{v1}?fieldSelector=host%3Dhost1"), None).await;
    assert_eq!(code, 400, "{status}");
    assert_eq!(by_host.next(2).await, ["ADDED a", "ADDED b"]);
    assert_eq!(by_both.next(1).await, ["ADDED a"]);
    assert_eq!(by_pair.next(1).await, ["ADDED a"]);

    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    done(&house, "DELETE", &format!("{v2}?fieldSelector=host%3Dhost1,port%3D80"), Some(options)).await;
    let mut moved = done(&house, "GET", &format!("{v2}/b"), None).await;
    moved["host"] = json!("host2");
    done(&house, "PUT", &format!("{v2}/b"), Some(moved)).await;
    let left = done(&house, "GET", &format!("{v2}?fieldSelector=host%3Dhost1"), None).await;
    assert_eq!(names(&left), Vec::<&str>::new());
    assert_eq!(by_host.next(2).await, ["DELETED a", "DELETED b"]);
    assert_eq!(by_both.next(1).await, ["DELETED a"]);
    assert_eq!(by_pair.next(1).await, ["DELETED a"]);
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_events() {
    let house = House::new().await;
    let [core, newer] =
        ["/api/v1", "/apis/events.k8s.io/v1"].map(|group| format!("{group}{NAMESPACE}/events"));
    let time = "2017-09-19T13:49:16.000000Z";
    let mut by_source =
        Told::of(&house, &format!("{core}?watch=1&fieldSelector=source%3Dtest-controller")).await;
    let mut by_controller =
        Told::of(&house, &format!("{newer}?watch=1&fieldSelector=reportingController%3Dtest-controller"))
            .await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "event-test", "labels": {"testevent-constant": "true"}},
        "regarding": {"namespace": "default"}, "eventTime": time, "note": "This is event-test", "action": "Do",
        "reason": "Test", "type": "Normal", "reportingController": "test-controller", "reportingInstance": "test-node"});
    let created = done(&house, "POST", &newer, Some(event.clone())).await;
    let older = json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"name": "older", "labels": {"testevent-constant": "true"}},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "message": "It began", "reason": "Began",
        "type": "Normal", "count": 3, "firstTimestamp": "2017-09-19T13:49:16Z", "lastTimestamp": "2017-09-19T13:50:16Z",
        "source": {"component": "old-controller", "host": "n1"}});
    done(&house, "POST", &core, Some(older)).await;

    let everywhere = ["/api/v1/events", "/apis/events.k8s.io/v1/events"].map(str::to_owned);
    for path in [&core, &newer].into_iter().chain(&everywhere) {
        let list =
            done(&house, "GET", &format!("{path}?labelSelector=testevent-constant%3Dtrue"), None).await;
        assert_eq!(names(&list), ["event-test", "older"], "{path}");
        let list = done(&house, "GET", &format!("{path}?fieldSelector=metadata.name%3Dolder"), None).await;
        assert_eq!(names(&list), ["older"], "{path}");
        let list = done(&house, "GET", &format!("{path}?fieldSelector=type!%3DNormal"), None).await;
        assert_eq!(names(&list), Vec::<&str>::new(), "{path}");
    }
    for (path, selector, expected) in [
        (&core, "source%3Dtest-controller", "event-test"),
        (&core, "source%3Dold-controller", "older"),
        (&core, "reportingComponent%3Dtest-controller", "event-test"),
        (&core, "involvedObject.kind%3DPod", "older"),
        (&newer, "reportingController%3Dtest-controller", "event-test"),
        (&newer, "regarding.kind%3DPod,regarding.name%3Dp", "older"),
        (&newer, "reason%3DTest", "event-test"),
    ] {
        let list = done(&house, "GET", &format!("{path}?fieldSelector={selector}"), None).await;
        assert_eq!(names(&list), [expected], "{selector}");
    }
    assert_eq!(by_source.next(1).await, ["ADDED event-test"]);
    assert_eq!(by_controller.next(1).await, ["ADDED event-test"]);

    let in_core = done(&house, "GET", &format!("{core}/event-test"), None).await;
    for (field, value) in [
        ("involvedObject", json!({"namespace": "default"})),
        ("message", json!("This is event-test")),
        ("reportingComponent", json!("test-controller")),
        ("reportingInstance", json!("test-node")),
        ("eventTime", json!(time)),
        ("source", json!({})),
    ] {
        assert_eq!(in_core[field], value, "{field}");
    }
    let in_newer = done(&house, "GET", &format!("{newer}/older"), None).await;
    for (field, value) in [
        ("regarding", json!({"kind": "Pod", "name": "p", "namespace": "default"})),
        ("note", json!("It began")),
        ("deprecatedCount", json!(3)),
        ("deprecatedFirstTimestamp", json!("2017-09-19T13:49:16Z")),
        ("deprecatedLastTimestamp", json!("2017-09-19T13:50:16Z")),
        ("deprecatedSource", json!({"component": "old-controller", "host": "n1"})),
        ("eventTime", Value::Null),
    ] {
        assert_eq!(in_newer[field], value, "{field}");
    }

    let strategic = "application/strategic-merge-patch+json";
    let series = json!({"count": 2, "lastObservedTime": time});
    let patch = json!({"series": series}).to_string();
    let (code, answer) = send(&house, "PATCH", &format!("{newer}/event-test"), strategic, &patch).await;
    assert_eq!(code, 200, "{answer}");
    let without = |mut event: Value| {
        let metadata = event["metadata"].as_object_mut().unwrap();
        metadata.retain(|field, _| !matches!(field.as_str(), "resourceVersion" | "managedFields"));
        event
    };
    let mut expected = without(created);
    expected["series"] = series;
    let read = done(&house, "GET", &format!("{newer}/event-test"), None).await;
    assert_eq!(without(read), expected);
    let mut updated = expected.clone();
    updated["series"] = json!({"count": 100, "lastObservedTime": time});
    done(&house, "PUT", &format!("{newer}/event-test"), Some(updated.clone())).await;
    let read = done(&house, "GET", &format!("{newer}/event-test"), None).await;
    assert_eq!(without(read), updated);
    let in_core = done(&house, "GET", &format!("{core}/event-test"), None).await;
    assert_eq!(in_core["series"], updated["series"]);

    done(&house, "DELETE", &format!("{newer}?labelSelector=testevent-constant%3Dtrue"), None).await;
    for path in [&core, &newer].into_iter().chain(&everywhere) {
        let list = done(&house, "GET", path, None).await;
        assert_eq!(names(&list), Vec::<&str>::new(), "{path}");
    }
}

/// The definition of a kind in the document of v2, without what every kind has.
async fn in_v2(house: &House, name: &str) -> Value {
    let document: Value = serde_json::from_str(&text(house.get("/openapi/v2").await).await).unwrap();
    let mut found = document["definitions"][name].clone();
    found.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind");
    if let Some(properties) = found.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|field, _| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
    }
    found
}

#[tokio::test]
async fn schemas_of_definitions_are_published_for_v2() {
    let house = House::new().await;
    let foo = json!({"description": "Foo CRD for Testing", "type": "object", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": {
            "description": "List of Bars and their specs.", "type": "array", "items": {"type": "object",
                "required": ["name"], "properties": {"name": {"description": "Name of Bar.", "type": "string"},
                "feeling": {"type": "string", "enum": ["Great", "Down"]}}}}}}}});
    define(&house, "foos", "Foo", foo.clone()).await;
    assert_eq!(in_v2(&house, "com.example.mygroup.v1beta1.Foo").await, foo);

    let preserve = |schema: Value| {
        let mut schema = schema;
        schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        schema
    };
    define(&house, "anys", "Any", preserve(foo)).await;
    assert_eq!(in_v2(&house, "com.example.mygroup.v1beta1.Any").await, json!({"type": "object"}));

    let spec = json!({"type": "object", "description": "Specification of Waldo", "properties": {
        "dummy": {"description": "Dummy property.", "type": "object"}}});
    let waldo = json!({"description": "nested", "type": "object", "required": ["gone", "kept"], "properties": {
        "spec": preserve(spec), "gone": {"type": "string", "nullable": true}, "kept": {"type": "string"},
        "several": {"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 9}], "anyOf": [{"minimum": 2}]}}});
    define(&house, "waldos", "Waldo", waldo).await;
    assert_eq!(
        in_v2(&house, "com.example.mygroup.v1beta1.Waldo").await,
        json!({"description": "nested", "type": "object", "required": ["kept"], "properties": {
            "spec": {"description": "Specification of Waldo", "x-kubernetes-preserve-unknown-fields": true},
            "gone": {}, "kept": {"type": "string"}, "several": {"type": "integer"}}})
    );
}
