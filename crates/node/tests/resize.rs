//! Pods that are resized in place: their cgroups, their status, their Events.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use serde_json::{Value, json};
use support::cgroups::Top;
use support::{TestHost, condition, is_ready, main_status};

/// A shell keeps what it was told, until it may go.
const USES: &str = "x=$(head -c 12000000 /dev/zero | tr '\\0' y); : > used; until [ -e go ]; do sleep 0.05; done; x=; \
                    exec sleep 1000";

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

/// What `kubectl patch --subresource resize` leaves in the store.
fn resize(host: &TestHost, name: &str, resources: &Value) {
    host.change(name, |pod| {
        pod["spec"]["containers"][0]["resources"] = resources.clone();
        let generation = pod["metadata"]["generation"].as_i64().unwrap();
        pod["metadata"]["generation"] = (generation + 1).into();
    });
}

fn has(pod: &Value, resources: &Value) -> bool {
    let settled =
        ["PodResizePending", "PodResizeInProgress"].iter().all(|kind| condition(pod, kind).is_none());
    settled && is_given(pod, resources) && main_status(pod)["resources"] == *resources
}

fn is_given(pod: &Value, resources: &Value) -> bool {
    main_status(pod)["allocatedResources"] == resources["requests"]
}

/// A host with the hierarchies that this machine has, and a pod with limits that runs on it.
async fn host_with_pod(top: &Top, container: Value) -> (TestHost, String) {
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    let mut main = json!({"command": ["sleep", "1000"], "resources": amounts("200m", "64Mi")});
    support::merge(&mut main, &container);
    let uid = host.pod_of_class("Guaranteed", "a", main, json!({}));
    host.until("a", "what it has", |pod| is_ready(pod) && has(pod, &amounts("200m", "64Mi"))).await;
    (host, uid)
}

/// That a container and its pod have these limits, as far as this machine has such.
fn assert_limits(top: &Top, uid: &str, cpu: &str, memory: &str) {
    for whose in ["main", ""] {
        let (quota, most) = top.limits(uid, whose);
        assert!(quota.is_none_or(|quota| quota == cpu), "{whose:?}");
        assert!(most.is_none_or(|most| most == memory), "{whose:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_grows_and_shrinks_without_a_restart_also_under_another_agent() {
    let Some(top) = Top::make("resize") else { return };
    let (mut host, uid) = host_with_pod(&top, json!({})).await;
    assert_limits(&top, &uid, "20000", "67108864");
    let pod = host.writer.get("pods", "default", "a").unwrap();
    let id = main_status(&pod)["containerID"].clone();

    resize(&host, "a", &amounts("400m", "128Mi"));
    host.until("a", "more", |pod| has(pod, &amounts("400m", "128Mi"))).await;
    assert_limits(&top, &uid, "40000", "134217728");
    host.until_event("ResizeStarted", |text| text.contains("\"generation\":2") && text.contains("400m"))
        .await;
    host.until_event("ResizeCompleted", |text| text.starts_with("Pod resize completed: {")).await;

    resize(&host, "a", &amounts("100m", "32Mi"));
    host.until("a", "less", |pod| has(pod, &amounts("100m", "32Mi"))).await;
    assert_limits(&top, &uid, "10000", "33554432");

    // What comes while no agent is there is done by the next one.
    host.agent.take().unwrap().leave().await;
    resize(&host, "a", &amounts("300m", "48Mi"));
    host.switch_on();
    let pod = host.until("a", "what came meanwhile", |pod| has(pod, &amounts("300m", "48Mi"))).await;
    assert_limits(&top, &uid, "30000", "50331648");
    let main = main_status(&pod);
    assert_eq!((&main["restartCount"], &main["containerID"]), (&json!(0), &id));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_host_has_waits_or_never_comes() {
    let Some(top) = Top::make("too-much") else { return };
    let (mut host, uid) = host_with_pod(&top, json!({})).await;
    let node = host.writer.get("nodes", "", "n1").unwrap();
    let processors: u64 = node["status"]["allocatable"]["cpu"].as_str().unwrap().parse().unwrap();
    let reason =
        |pod: &Value| condition(pod, "PodResizePending").map(|c| c["reason"].clone()).unwrap_or_default();

    resize(&host, "a", &amounts("1000000", "64Mi"));
    let pod = host.until("a", "infeasible", |pod| reason(pod) == "Infeasible").await;
    let told = condition(&pod, "PodResizePending").unwrap();
    let message = format!(
        "Node didn't have enough capacity: cpu, requested: 1000000000, capacity: {}",
        processors * 1000
    );
    assert_eq!((&told["message"], &told["observedGeneration"]), (&message.into(), &json!(2)));
    assert!(is_given(&pod, &amounts("200m", "64Mi")));
    assert_limits(&top, &uid, "20000", "67108864");
    host.until_event("ResizeInfeasible", |text| text.starts_with("Pod resize Infeasible: {")).await;

    // Another pod has nearly all; what it leaves is too little, until it goes. An agent that comes new doesn't give more.
    let others = amounts(&format!("{}m", processors * 1000 - 300), "1Mi");
    host.pod_of_class(
        "Guaranteed",
        "b",
        json!({"command": ["sleep", "1000"], "resources": {"requests": others["requests"]}}),
        json!({}),
    );
    host.until("b", "ready", is_ready).await;
    resize(&host, "a", &amounts("400m", "64Mi"));
    let pod = host.until("a", "deferred", |pod| reason(pod) == "Deferred").await;
    let message = &condition(&pod, "PodResizePending").unwrap()["message"];
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("Node didn't have enough resource: cpu, requested: 400, used: "),
        "{message}"
    );
    host.agent.take().unwrap().leave().await;
    host.switch_on();
    host.until("b", "a new agent", is_ready).await;
    assert_limits(&top, &uid, "20000", "67108864");
    host.delete("b", 0);
    host.until("a", "what it asked for", |pod| has(pod, &amounts("400m", "64Mi"))).await;
    assert_limits(&top, &uid, "40000", "67108864");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_what_is_used_waits_for_that() {
    let Some(top) = Top::make("used") else { return };
    let (mut host, uid) = host_with_pod(&top, json!({"command": ["sh", "-c", USES]})).await;
    host.until_file(&host.work(&uid).join("used"), |_| true).await;
    resize(&host, "a", &amounts("200m", "8Mi"));
    let error =
        |pod: &Value| condition(pod, "PodResizeInProgress").map(|c| c["reason"].clone()).unwrap_or_default();
    let pod = host.until("a", "an error", |pod| error(pod) == "Error").await;
    let told = condition(&pod, "PodResizeInProgress").unwrap();
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("cannot decrease memory limits: "), "{message}");
    assert!(
        message.contains("attempting to set container \"main\" memory limit (8388608) below current usage ("),
        "{message}"
    );
    // It is given the less, and has the more.
    assert!(is_given(&pod, &amounts("200m", "8Mi")));
    assert_eq!(main_status(&pod)["resources"], amounts("200m", "64Mi"));
    assert_limits(&top, &uid, "20000", "67108864");
    host.until_event("ResizeError", |text| text.contains("\"error\":\"cannot decrease")).await;
    std::fs::write(host.work(&uid).join("go"), "").unwrap();
    let pod = host.until("a", "less", |pod| has(pod, &amounts("200m", "8Mi"))).await;
    assert_limits(&top, &uid, "20000", "8388608");
    assert_eq!(main_status(&pod)["restartCount"], 0);
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_what_it_uses_while_another_container_of_it_starts_anew() {
    let Some(top) = Top::make("anew") else { return };
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    let ends = "until [ -e end ]; do sleep 0.05; done; rm end; exit 1";
    let containers = json!([
        {"name": "main", "command": ["sh", "-c", USES], "resources": amounts("200m", "64Mi")},
        {"name": "other", "command": ["sh", "-c", ends], "resources": amounts("100m", "16Mi")},
    ]);
    let uid = host.pod_of_class("Guaranteed", "a", json!({}), json!({"containers": containers}));
    host.until("a", "ready", is_ready).await;
    host.until_file(&host.work(&uid).join("used"), |_| true).await;
    resize(&host, "a", &amounts("200m", "8Mi"));
    let is_refused =
        |pod: &Value| condition(pod, "PodResizeInProgress").is_some_and(|told| told["reason"] == "Error");
    host.until("a", "an error", is_refused).await;
    std::fs::write(host.work(&uid).join("end"), "").unwrap();
    let pod = host
        .until("a", "another life of the other", |pod| {
            pod["status"]["containerStatuses"][1]["restartCount"] == 1 && is_ready(pod)
        })
        .await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    let memory = |whose: &str| top.limits(&uid, whose).1;
    assert!(memory("main").is_none_or(|most| most == "67108864"));
    assert!(memory("").is_none_or(|most| most == "83886080"), "both together have what they had");
    std::fs::write(host.work(&uid).join("go"), "").unwrap();
    host.until("a", "less", |pod| has(pod, &amounts("200m", "8Mi"))).await;
    assert!(memory("").is_none_or(|most| most == "25165824"));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_restarted_where_its_policy_says_so() {
    let Some(top) = Top::make("restart") else { return };
    let policy = json!({"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}]});
    let (mut host, uid) = host_with_pod(&top, policy).await;
    resize(&host, "a", &amounts("300m", "64Mi"));
    let pod = host.until("a", "another quota", |pod| has(pod, &amounts("300m", "64Mi"))).await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    resize(&host, "a", &amounts("300m", "32Mi"));
    let has_all = |pod: &Value| {
        is_ready(pod) && main_status(pod)["restartCount"] == 1 && has(pod, &amounts("300m", "32Mi"))
    };
    host.until("a", "another life", has_all).await;
    assert_limits(&top, &uid, "30000", "33554432");
    host.until_event("Killing", |text| text == "Container main resize requires restart").await;
    host.shut_down().await;
}
