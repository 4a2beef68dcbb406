//! How a host's pods end as it shuts down: in the order of their priorities, each group within its time.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;
use std::time::Duration;

use node::ShutdownGroup;
use serde_json::{Value, json};
use store::Store;
use support::{PATIENCE, TestHost, condition, is_alive, is_ready};

const TERMINATED: &str = "Pod was terminated in response to imminent node shutdown.";

fn group(priority: i32, seconds: u64) -> ShutdownGroup {
    ShutdownGroup { priority, grace: Duration::from_secs(seconds) }
}

fn is_terminated(pod: &Value) -> bool {
    let status = &pod["status"];
    status["phase"] == "Failed" && status["reason"] == "Terminated" && status["message"] == TERMINATED
}

/// Waits until the Node says that it is ready, or not, and answers how it says it.
async fn until_node_is_ready(host: &TestHost, wanted: &str) -> Value {
    let mut states = host.writer.store.states();
    let wait = async {
        loop {
            states.borrow_and_update();
            let node = host.writer.get("nodes", "", "n1").unwrap();
            let ready = condition(&node, "Ready").unwrap().clone();
            if ready["status"] == wanted {
                return ready;
            }
            states.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it never says {wanted}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_end_in_the_order_of_their_priorities_and_say_why() {
    let mut host = TestHost::off();
    host.shutdown = vec![group(0, 3000), group(1000, 3000), group(2_000_000_000, 3000)];
    host.switch_on();
    let folder = host.folder.path().to_owned();
    let (order, release) = (folder.join("order"), folder.join("release"));
    let ends = |name: &str, waits: &str| {
        let script = format!(
            "trap 'echo {name} >> {}; {waits} exit 0' TERM; while :; do sleep 0.01; done",
            order.display()
        );
        json!({"command": ["sh", "-c", script]})
    };
    let waits = format!("until test -e {}; do sleep 0.01; done;", release.display());
    let spec = |priority: i32| json!({"priority": priority, "terminationGracePeriodSeconds": 3000});
    host.pod("critical", ends("critical", ""), spec(2_000_001_000));
    host.pod("plain", ends("plain", &waits), spec(0));
    // Of the second group there is none.
    host.until("critical", "ready", is_ready).await;
    host.until("plain", "ready", is_ready).await;

    let agent = host.agent.take().unwrap();
    let ending = tokio::spawn(agent.shutdown_in_order(std::future::pending()));
    host.until_file(&order, |text| text == "plain\n").await;
    // Meanwhile the host takes no pod, and its Node says why.
    host.pod("late", json!({"command": ["sleep", "1000"]}), json!({"priority": 2_000_001_000}));
    let late = host.until("late", "refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], "NodeShutdown");
    assert_eq!(late["status"]["message"], "Pod was rejected as the node is shutting down.");
    let ready = until_node_is_ready(&host, "False").await;
    assert_eq!(
        (&ready["reason"], &ready["message"]),
        (&json!("KubeletNotReady"), &json!("node is shutting down"))
    );
    assert!(is_ready(&host.writer.get("pods", "default", "critical").unwrap()), "it isn't its turn");
    assert_eq!(fs::read_to_string(&order).unwrap(), "plain\n");

    fs::write(&release, "").unwrap();
    tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(&order).unwrap(), "plain\ncritical\n");
    for name in ["plain", "critical"] {
        let pod = host.writer.get("pods", "default", name).unwrap();
        assert!(is_terminated(&pod), "{pod:#}");
        let disruption = condition(&pod, "DisruptionTarget").unwrap();
        assert_eq!(
            (&disruption["status"], &disruption["reason"]),
            (&json!("True"), &json!("TerminationByKubelet"))
        );
    }
    // What is over never runs again, and the Node is what it was.
    host.switch_on();
    host.pod("next", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("next", "ready", is_ready).await;
    assert!(is_terminated(&host.writer.get("pods", "default", "plain").unwrap()));
    until_node_is_ready(&host, "True").await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_its_time_and_who_asks_twice_does_not_wait() {
    let mut host = TestHost::off();
    host.shutdown = vec![group(0, 0), group(1000, 3000)];
    host.switch_on();
    let pids = |name: &str| host.folder.path().join(name);
    let stubborn = |name: &str| {
        let script =
            format!("trap '' TERM; echo $$$$ > {}; while :; do sleep 0.01; done", pids(name).display());
        json!({"command": ["sh", "-c", script]})
    };
    let spec = |priority: i32| json!({"priority": priority, "terminationGracePeriodSeconds": 3000});
    host.pod("first", stubborn("first"), spec(0));
    host.pod("second", stubborn("second"), spec(1000));
    host.until("first", "ready", is_ready).await;
    host.until("second", "ready", is_ready).await;
    let pid = |text: String| text.trim().to_owned();
    let first = pid(host.until_file(&pids("first"), |text| text.ends_with('\n')).await);
    let second = pid(host.until_file(&pids("second"), |text| text.ends_with('\n')).await);

    let agent = host.agent.take().unwrap();
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let ending = tokio::spawn(agent.shutdown_in_order(async { drop(hurried.await) }));
    // Killed, since nothing was left of its time.
    host.until("first", "terminated", is_terminated).await;
    assert!(!is_alive(&first));
    assert!(is_alive(&second));
    hurry.send(()).unwrap();
    tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap();
    assert!(!is_alive(&second));
    let pod = host.writer.get("pods", "default", "second").unwrap();
    assert_eq!(pod["status"]["phase"], "Running", "of what had to end at once nothing is said");
}
