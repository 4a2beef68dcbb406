//! Pods that go as the host runs short of something, or as they take more of its disk than they may.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use node::{Bound, Signal, Threshold};
use serde_json::{Value, json};
use support::image::can_contain;
use support::{TestHost, condition, is_ready, main_status};

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
    let loud = host.pod("loud", json!({"command": ["sh", "-c", shouts], "resources": limit}), json!({}));
    // Processes of the host have a folder on the disk, whatever they ask for.
    let memory = json!({"medium": "Memory", "sizeLimit": "1Mi"});
    let fill_memory = json!({"command": ["sh", "-c", fill]});
    host.pod("memory", fill_memory, json!({"volumes": [{"name": "v", "emptyDir": memory}]}));
    let pod = host.until("large", "evicted", is_evicted).await;
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    assert_eq!(pod["status"]["message"], message);
    assert!(condition(&pod, "DisruptionTarget").is_none(), "it is its own fault");
    host.until_event("Evicted", |told| told == message).await;
    let pod = host.until("memory", "evicted", is_evicted).await;
    assert_eq!(pod["status"]["message"], message);
    let pod = host.until("loud", "evicted", is_evicted).await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(pod["status"]["message"], message);
    assert!(is_ready(&host.writer.get("pods", "default", "fits").unwrap()));
    // Nobody deletes them: what they wrote must go all the same. Who asks why they went may read their logs.
    for uid in ["uid-of-large", "uid-of-memory", &loud] {
        host.until_put_away(uid).await;
    }
    assert!(host.log("loud", 0).starts_with("0123456789"));
    assert!(is_evicted(&host.writer.get("pods", "default", "loud").unwrap()));
    host.shut_down().await;
    assert!(host.pod_folder("uid-of-fits").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_waits_to_start_again_is_looked_at_too() {
    let mut host = TestHost::start();
    // The first restart is immediate; after the second life it waits for 10 s.
    let fill = "cd $HOLDFAST_VOLUME_V; test -e again && dd if=/dev/zero of=large bs=1k count=3000 2> /dev/null; touch again; exit 1";
    let volume = json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]});
    host.pod("crashes", json!({"command": ["sh", "-c", fill]}), volume);
    let pod = host.until("crashes", "evicted", is_evicted).await;
    assert_eq!(main_status(&pod)["restartCount"], 1, "nothing of it ran");
    host.until_put_away("uid-of-crashes").await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_over_leaves_its_logs_and_nothing_else() {
    let mut host = TestHost::start();
    let command = "echo done; echo x > $HOLDFAST_VOLUME_V/x";
    let spec = json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}},
        {"name": "names", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]});
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), spec);
    let over = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    let before = host.until("a", "over", over).await;
    host.until_put_away(&uid).await;
    assert_eq!(host.log("a", 0), "done\n");
    // The next agent knows no more than the object says.
    host.agent.take().unwrap().leave().await;
    host.switch_on();
    let change = |pod: &mut Value| pod["metadata"]["labels"] = json!({"seen": "again"});
    host.change("a", change);
    host.pod("b", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("b", "ready", is_ready).await;
    let after = host.writer.get("pods", "default", "a").unwrap();
    assert_eq!(after["status"]["phase"], "Succeeded");
    assert_eq!(main_status(&after)["state"], main_status(&before)["state"]);
    assert!(!host.pod_folder(&uid).exists());
    assert_eq!(host.log("a", 0), "done\n");
    host.delete("a", 0);
    host.until_gone("a").await;
    assert_eq!(host.log("a", 0), "", "its logs go with its object");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_its_time_to_end_holds_no_other_back() {
    let mut host = TestHost::start();
    let stubborn = "trap '' TERM; echo up > up; while :; do sleep 0.1; done";
    let make = |name: &str, command: &str, spec: Value| {
        host.pod_of_class("Burstable", name, json!({"command": ["sh", "-c", command]}), spec)
    };
    let uid = make("slow", stubborn, json!({"priority": -10, "terminationGracePeriodSeconds": 1000}));
    make("other", "exec sleep 1000", json!({}));
    host.until_file(&host.work(&uid).join("up"), |text| text == "up\n").await;
    host.until("slow", "ready", is_ready).await;
    host.until("other", "ready", is_ready).await;
    host.delete("slow", 1000);
    // An agent that finds its pods running lets them stay, short of memory or not.
    host.agent.take().unwrap().leave().await;
    // No machine has that much.
    host.eviction.thresholds = vec![Threshold::hard(Signal::Memory, Bound::Percent(200.0))];
    host.switch_on();
    host.until_gone("slow").await;
    host.until("other", "evicted", is_evicted).await;
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
