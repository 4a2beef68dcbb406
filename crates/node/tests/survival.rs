//! Pods and the agent's end: what goes on, what the next agent finds, what it ends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use futures::FutureExt;
use serde_json::{Value, json};
use store::Store;
use support::{PATIENCE, TestHost, condition, is_alive, is_ready, main_status};

/// Counts into its log, a line each 10 ms, and says which process it is.
const COUNTER: &str = "echo $$$$ > pid; n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done";

fn numbers(log: &str) -> Vec<u64> {
    log.lines().map(|line| line.parse().unwrap()).collect()
}

async fn until_counted(host: &TestHost, pod: &str, more_than: usize) -> usize {
    loop {
        let counted = numbers(&host.log(pod, 0)).len();
        if counted > more_than {
            return counted;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_a_former_pods_until_nothing_of_it_runs() {
    let mut host = TestHost::start();
    let uid = host.pod("former", json!({"command": ["sh", "-c", COUNTER]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    let pod = host.until("former", "ready", is_ready).await;
    let address = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    host.agent.take().unwrap().leave().await;
    host.writer.remove("pods", "default", "former");
    host.switch_on();
    let given_back = async {
        while host.addresses.0.lock().unwrap().contains(&address) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.unwrap();
    assert!(!is_alive(&pid));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_its_agent_and_loses_no_line() {
    let mut host = TestHost::start();
    let probe = |command: Value| json!({"exec": {"command": command}, "periodSeconds": 1});
    // What makes it not ready below must not end it.
    let (ready, alive) = (probe(json!(["test", "-e", "pid"])), probe(json!(["true"])));
    let uid = host.pod(
        "a",
        json!({"command": ["sh", "-c", COUNTER], "readinessProbe": ready, "livenessProbe": alive}),
        json!({}),
    );
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    let before = host.until("a", "ready", is_ready).await;
    for _ in 0..2 {
        drop(host.agent.take());
        let counted = numbers(&host.log("a", 0)).len();
        until_counted(&host, "a", counted + 20).await;
        host.change("a", |pod| pod["metadata"]["labels"]["back"] = "yes".into());
        host.switch_on();
        let counted = numbers(&host.log("a", 0)).len();
        until_counted(&host, "a", counted + 20).await;
    }
    // The new agent's probes find when it is sick.
    std::fs::remove_file(host.work(&uid).join("pid")).unwrap();
    let after = host.until("a", "not ready", |pod| !is_ready(pod)).await;
    let (was, is) = (main_status(&before), main_status(&after));
    assert_eq!((&is["restartCount"], &is["state"]), (&json!(0), &was["state"]), "{is}");
    assert_eq!(is["containerID"], was["containerID"]);
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert!(is_alive(&pid));
    let counted = numbers(&host.log("a", 0));
    let expected: Vec<u64> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, expected, "no line is missing or doubled");
    host.delete("a", 0);
    host.until_gone("a").await;
    assert!(!is_alive(&pid) && host.shims().is_empty());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_the_agent_is_away_is_seen() {
    let mut host = TestHost::start();
    let wait = "echo $$$$ > pid; while ! test -e end; do sleep 0.01; done; exit 7";
    let uid = host.pod("a", json!({"command": ["sh", "-c", wait]}), json!({"restartPolicy": "Never"}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    host.until("a", "ready", is_ready).await;
    drop(host.agent.take());
    std::fs::write(host.work(&uid).join("end"), "").unwrap();
    while is_alive(&pid) {
        tokio::task::yield_now().await;
    }
    host.switch_on();
    let pod = host.until("a", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &main_status(&pod)["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(7), &json!("Error")), "{ended}");
    assert_eq!(main_status(&pod)["restartCount"], 0);
    while !host.shims().is_empty() {
        tokio::task::yield_now().await;
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_went_meanwhile_is_ended() {
    let mut host = TestHost::start();
    let uid = host.pod("a", json!({"command": ["sh", "-c", COUNTER]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    drop(host.agent.take());
    host.writer.remove("pods", "default", "a");
    assert!(is_alive(&pid));
    host.switch_on();
    while is_alive(&pid) || !host.shims().is_empty() || host.work(&uid).exists() {
        tokio::task::yield_now().await;
    }
    host.shut_down().await;
}

/// One thread: the agent sees nothing of what happens between two awaits.
#[tokio::test]
async fn a_pod_whose_name_another_hosts_pod_got_unseen_is_ended() {
    let mut host = TestHost::start();
    let uid = host.pod("a", json!({"command": ["sh", "-c", COUNTER]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    host.until("a", "ready", is_ready).await;
    let mut other = host.writer.get("pods", "default", "a").unwrap();
    (other["metadata"]["uid"], other["spec"]["nodeName"]) = ("another".into(), "n2".into());
    host.writer.remove("pods", "default", "a");
    host.writer.put(&other);
    let store = &host.writer.store;
    store.compact(store.snapshot().revision()).now_or_never().unwrap().unwrap();
    while is_alive(&pid) || !host.shims().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.writer.get("pods", "default", "a"), Some(other), "which is none of this host's business");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_an_agent_that_leaves() {
    let mut host = TestHost::start();
    let uid = host.pod("a", json!({"command": ["sh", "-c", COUNTER]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    let before = host.until("a", "ready", is_ready).await;
    host.agent.take().unwrap().leave().await;
    assert_eq!(host.writer.get("pods", "default", "a"), Some(before.clone()), "nothing is said of its end");
    host.switch_on();
    host.change("a", |pod| pod["status"]["phase"] = "Pending".into());
    let after = host.until("a", "looked after again", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(main_status(&after), main_status(&before));
    assert!(is_alive(&pid));
    host.shut_down().await;
    assert!(!is_alive(&pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_is_killed_dies_and_starts_again() {
    let mut host = TestHost::start();
    // A child in a session of its own: the kernel doesn't kill it with the shim.
    let command = "setsid sleep 1000 & echo $! >> pid; exec sleep 1000";
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    host.until("a", "ready", is_ready).await;
    assert_eq!(host.shims().len(), 1);
    host.kill_shims();
    let again = |pod: &Value| main_status(pod)["restartCount"] == 1 && is_ready(pod);
    let pod = host.until("a", "started again", again).await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 137);
    assert!(!is_alive(&pid), "what it left is dead");
    assert_eq!(condition(&pod, "Ready").unwrap()["status"], "True");
    host.shut_down().await;
    assert!(host.shims().is_empty(), "nothing is left after an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_took_its_hosts_port_is_ended() {
    let mut host = TestHost::start();
    let uid = host.pod("a", json!({"command": ["sh", "-c", COUNTER]}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    drop(host.agent.take());
    let data = host.folder.path().join("agent");
    let thief = std::net::TcpListener::bind((format!("127.{}.0.1", host.net), 0)).unwrap();
    let port = thief.local_addr().unwrap();
    let free = std::net::SocketAddr::new(format!("127.{}.0.2", host.net).parse().unwrap(), port.port());
    node::end_former_pods(&data, &[free], None).await;
    assert!(is_alive(&pid), "its shim holds it, and it is in nobody's way");
    node::end_former_pods(&data, &[free, port], None).await;
    assert!(!is_alive(&pid) && host.shims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shims_socket_is_for_its_own_user_and_its_memory_is_small() {
    use std::os::unix::fs::PermissionsExt;
    let mut host = TestHost::start();
    let secret = json!([{"name": "SECRET", "value": "only-in-the-pod"}]);
    let uid = host.pod("a", json!({"command": ["sleep", "1000"], "env": secret}), json!({}));
    host.until("a", "ready", is_ready).await;
    let socket = host.folder.path().join("agent/pods").join(&uid).join("shim.sock");
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o7777, 0o600);
    let shim = host.shims()[0];
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{shim}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("only-in-the-pod"), "{file}");
    }
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    assert_eq!(field("Threads:"), 1);
    // SAFETY: a system call on a number.
    assert_eq!(unsafe { libc::getsid(shim) }, shim, "no terminal of the agent's ends it");
    println!("a shim has {} kB of its own, {} kB resident", field("RssAnon:"), field("VmRSS:"));
    assert!(field("RssAnon:") < 1024, "{status}");
    host.shut_down().await;
}
