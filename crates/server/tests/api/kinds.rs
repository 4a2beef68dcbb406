//! Kinds of which a recording doesn't show all: those with two versions, and those that are no objects in the
//! store.

use serde_json::{Value, json};

use crate::house::House;

const SECOND: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const FIRST: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";

fn scaler(version: &str, spec: Value) -> Value {
    json!({"kind": "HorizontalPodAutoscaler", "apiVersion": format!("autoscaling/{version}"),
        "metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let house = House::new().await;
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60});
    let (code, made) = house.ask("POST", FIRST, Some(scaler("v1", spec))).await;
    assert_eq!((code, &made["apiVersion"]), (201, &json!("autoscaling/v1")), "{made}");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 60);

    let (_, second) = house.ask("GET", &format!("{SECOND}/a"), None).await;
    assert_eq!(second["apiVersion"], "autoscaling/v2");
    assert_eq!(second["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(second["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let (_, list) = house.ask("GET", FIRST, None).await;
    assert_eq!(list["apiVersion"], "autoscaling/v1");
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 60);

    // A change in one version is one in the other.
    let mut changed = second.clone();
    changed["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = json!(70);
    let (code, answer) = house.ask("PUT", &format!("{SECOND}/a"), Some(changed)).await;
    assert_eq!(code, 200, "{answer}");
    let (_, first) = house.ask("GET", &format!("{FIRST}/a"), None).await;
    assert_eq!(first["spec"]["targetCPUUtilizationPercentage"], 70);
    let (_, gone) = house.ask("DELETE", &format!("{FIRST}/a"), None).await;
    assert_eq!(gone["status"], "Success", "{gone}");
    assert_eq!(house.ask("GET", &format!("{SECOND}/a"), None).await.0, 404);
}

#[tokio::test]
async fn an_autoscalers_target_has_a_group() {
    let house = House::new().await;
    for (version, path) in [("v1", FIRST), ("v2", SECOND)] {
        let with = |kind: &str, of: Value, most: u64| {
            let target = json!({"kind": kind, "name": "d", "apiVersion": of});
            scaler(version, json!({"scaleTargetRef": target, "maxReplicas": most}))
        };
        for (kind, of, why) in [
            ("Deployment", json!("v1"), "Invalid value: \"v1\": apiVersion must specify API group"),
            ("Deployment", json!(null), "Invalid value: \"\": apiVersion must specify API group"),
            ("Deployment", json!("/v1"), "Invalid value: \"/v1\": apiVersion must specify API group"),
            ("Deployment", json!("a/b/c"), "Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"),
        ] {
            let (code, answer) = house.ask("POST", path, Some(with(kind, of, 1))).await;
            let expected = format!(
                "HorizontalPodAutoscaler.autoscaling \"a\" is invalid: spec.scaleTargetRef.apiVersion: {why}"
            );
            assert_eq!((code, &answer["message"]), (422, &json!(expected)));
        }
        let (code, made) = house.ask("POST", path, Some(with("ReplicationController", json!("v1"), 1))).await;
        assert_eq!(code, 201, "{made}");
        let one = format!("{path}/a");
        // What is as it was isn't looked at again.
        let (code, answer) =
            house.ask("PUT", &one, Some(with("ReplicationController", json!("v1"), 2))).await;
        assert_eq!(code, 200, "{answer}");
        let (code, _) = house.ask("PUT", &one, Some(with("Deployment", json!("v1"), 2))).await;
        assert_eq!(code, 422);
        house.ask("DELETE", &one, None).await;
    }
    let object = json!({"type": "Object", "object": {"metric": {"name": "m"}, "target": {"type": "Value", "value": 1},
        "describedObject": {"apiVersion": "a/b/c", "kind": "K", "name": "n"}}});
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 1, "metrics": [object]});
    let (code, answer) = house.ask("POST", SECOND, Some(scaler("v2", spec))).await;
    let cause = &answer["details"]["causes"][0];
    assert_eq!((code, &cause["field"]), (422, &json!("spec.metrics[0].object.describedObject.apiVersion")));
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_events() {
    let house = House::new().await;
    let event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"},
        "eventTime": "2026-01-31T12:00:00.000000Z", "reportingController": "example.com/c",
        "reportingInstance": "c-1", "action": "Test", "reason": "Why", "type": "Normal", "note": "hello",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let (code, made) = house.ask("POST", path, Some(event)).await;
    assert_eq!((code, &made["note"]), (201, &json!("hello")), "{made}");
    let selected = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp";
    let (_, list) = house.ask("GET", selected, None).await;
    assert_eq!(list["items"][0]["message"], "hello", "{list}");
    let (_, list) = house.ask("GET", &format!("{path}?fieldSelector=regarding.name%3Dp"), None).await;
    assert_eq!(list["items"][0]["note"], "hello", "{list}");
}

#[tokio::test]
async fn parts_of_the_control_plane_are_told_and_not_kept() {
    let house = House::new().await;
    let (code, list) = house.ask("GET", "/api/v1/componentstatuses", None).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 3), "{list}");
    let (_, one) = house.ask("GET", "/api/v1/componentstatuses/scheduler", None).await;
    assert_eq!(one["conditions"][0]["status"], "True", "{one}");
    assert_eq!(house.ask("GET", "/api/v1/componentstatuses/none", None).await.0, 404);
}

#[tokio::test]
async fn a_binding_by_the_path_of_all_bindings_places_its_pod() {
    let house = House::new().await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await.0, 201);
    let path = "/api/v1/namespaces/default/bindings";
    let mut binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {}});
    let (code, answer) = house.ask("POST", path, Some(binding.clone())).await;
    assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!("target.name")), "{answer}");
    binding["target"] = json!({"kind": "Node", "name": "n1"});
    assert_eq!(house.ask("POST", path, Some(binding)).await.0, 201);
    let (_, pod) = house.ask("GET", "/api/v1/namespaces/default/pods/p", None).await;
    assert_eq!(pod["spec"]["nodeName"], "n1");
}
