//! Pods that go as the host runs short of something, or as they take more of its disk than they may.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use node::{Bound, Signal, Threshold};
use serde_json::{Value, json};
use support::image::can_contain;
use support::{TestHost, condition, is_ready};

fn is_evicted(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "Evicted"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_more_of_the_disk_than_it_may_is_evicted() {
    let mut host = TestHost::start();
    let fill = "dd if=/dev/zero of=$HOLDFAST_VOLUME_V/large bs=1k count=3000 2> /dev/null; exec sleep 1000";
    let volume = |limit: &str| json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": limit}}]});
    host.pod("large", json!({"command": ["sh", "-c", fill]}), volume("1Mi"));
    host.pod("fits", json!({"command": ["sh", "-c", fill]}), volume("1Gi"));
    let shouts = "while :; do echo 0123456789012345678901234567890123456789; done";
    let limit = json!({"limits": {"ephemeral-storage": "1Mi"}});
    host.pod("loud", json!({"command": ["sh", "-c", shouts], "resources": limit}), json!({}));
    let pod = host.until("large", "evicted", is_evicted).await;
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    assert_eq!(pod["status"]["message"], message);
    assert!(condition(&pod, "DisruptionTarget").is_none(), "it is its own fault");
    host.until_event("Evicted", |told| told == message).await;
    let pod = host.until("loud", "evicted", is_evicted).await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(pod["status"]["message"], message);
    assert!(is_ready(&host.writer.get("pods", "default", "fits").unwrap()));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_writes_into_its_root_counts() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    host.image("box", &json!({}));
    let fill = "dd if=/dev/zero of=/large bs=1k count=3000; exec sleep 1000";
    let limit = json!({"limits": {"ephemeral-storage": "1Mi"}});
    host.contained("a", json!({"command": ["sh", "-c", fill], "resources": limit}), json!({}));
    host.until("a", "evicted", is_evicted).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_short_of_memory_says_so_and_has_one_pod_go_after_the_other() {
    let mut host = TestHost::off();
    // No machine has that much.
    host.eviction.thresholds = vec![Threshold::hard(Signal::Memory, Bound::Percent(200.0))];
    host.switch_on();
    host.until_pressure("MemoryPressure").await;
    let asks = json!({"command": ["sleep", "1000"], "resources": {"requests": {"memory": "1Gi"}}});
    let none = json!({"command": ["sleep", "1000"]});
    // A pod without a claim isn't even let in; the others asked for something.
    host.pod("stranger", none.clone(), json!({}));
    let pod = host.until("stranger", "refused", is_evicted).await;
    assert_eq!(pod["status"]["message"], "The node had condition: [MemoryPressure]. ");
    let claims = |name: &str, container: &Value, priority: i32| {
        host.pod_of_class("Burstable", name, container.clone(), json!({"priority": priority}));
    };
    claims("modest", &asks, 0);
    claims("greedy", &none, 5);
    claims("system", &none, 2_000_000_000);
    let pod = host.until("greedy", "evicted", is_evicted).await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: memory. Threshold quantity: "), "{message}");
    assert!(
        message.contains("Container main was using ") && message.contains(", request is 0, "),
        "{message}"
    );
    let told = condition(&pod, "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    host.until("modest", "evicted", is_evicted).await;
    // It took no more than it asked for.
    let is_modest = |told: &str| told.starts_with("The node was low") && !told.contains("Container main");
    host.until_event("Evicted", is_modest).await;
    assert!(is_ready(&host.until("system", "ready", is_ready).await), "never");
    host.shut_down().await;
}
