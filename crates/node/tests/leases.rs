//! Pods that must not run twice, and the lease of their host: they start in it, and stop with it whatever becomes of the agent.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::path::Path;
use std::time::Duration;

use membership::lease::Epoch;
use membership::{Lease, LeasePage, boottime};
use objects::{FENCED_EPOCH, FENCING, LEASE_EPOCH, STOPS_WITH_LEASE};
use serde_json::{Value, json};
use support::{TestHost, condition, is_alive, is_ready, main_status};
use tokio::sync::watch;

/// A lease that its host's heartbeats renew.
const LEASE: Duration = Duration::from_secs(2);

/// A host that doesn't hold its lease yet.
fn host() -> TestHost {
    let mut host = TestHost::off();
    host.lease = Some((watch::Sender::new(Lease::Awaited(7)), LeasePage::create().unwrap()));
    host.switch_on();
    host
}

/// The host's heartbeats, as far as leases go.
struct Heartbeats(tokio::task::JoinHandle<()>);

impl Heartbeats {
    fn hold(host: &TestHost, epoch: Epoch) -> Self {
        let (state, page) = host.lease.as_ref().unwrap();
        page.set(epoch, Some(boottime() + LEASE));
        state.send_replace(Lease::Held(epoch));
        let page = page.clone();
        Heartbeats(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                page.set(epoch, Some(boottime() + LEASE));
            }
        }))
    }

    /// Nobody renews the lease any more.
    async fn cease(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// A pod of a StatefulSet that says which processes it has, one of them in a session of its own.
fn pod(host: &TestHost) -> String {
    let command = "setsid sleep 1000 & echo $! >> pids; echo $$$$ >> pids; echo >> pids; wait";
    host.writer.put(&json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "db-0", "namespace": "default", "uid": "uid-of-db-0", "generation": 1, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]},
        "spec": {"nodeName": "n1", "runtimeClassName": "host",
            "containers": [{"name": "main", "command": ["sh", "-c", command]}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }));
    "uid-of-db-0".to_owned()
}

async fn pids(host: &TestHost, uid: &str) -> Vec<String> {
    let file = host.work(uid).join("pids");
    let text = host.until_file(&file, |text| text.ends_with("\n\n")).await;
    std::fs::remove_file(file).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

async fn until_dead(host: &TestHost, pids: &[String]) {
    let wait = async {
        while pids.iter().any(|pid| is_alive(pid)) || !host.shims().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, wait).await.expect("all of the pod dies");
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).unwrap_or_default()
}

fn waits(pod: &Value) -> bool {
    main_status(pod)["state"]["waiting"]["reason"] == "HostLeaseAwaited"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_once_its_host_holds_its_lease_and_dies_with_it_without_agent_and_shim() {
    for stopped in [None, Some("holdfast-shim")] {
        let mut host = host();
        let uid = pod(&host);
        host.until("db-0", "waiting", waits).await;
        assert!(host.shims().is_empty());
        let heartbeats = Heartbeats::hold(&host, 7);
        let said = host.until("db-0", "ready", is_ready).await;
        let condition = condition(&said, STOPS_WITH_LEASE).unwrap();
        assert!(condition["status"] == "True" && condition["message"].as_str().unwrap().contains("epoch 7"));
        let node = host.writer.get("nodes", "", "n1").unwrap();
        let node = &node["metadata"]["annotations"];
        assert_eq!((&node[FENCING], &node[LEASE_EPOCH]), (&json!("lease"), &json!("7")));
        let pids = pids(&host, &uid).await;
        // The agent is gone, and the shim does nothing.
        drop(host.agent.take());
        for shim in host.shims().into_iter().filter(|pid| Some(name(*pid).trim()) == stopped) {
            // SAFETY: a system call on numbers; the process is a shim of this test's own host.
            unsafe { libc::kill(shim, libc::SIGSTOP) };
        }
        assert!(pids.iter().all(|pid| is_alive(pid)));
        heartbeats.cease().await;
        until_dead(&host, &pids).await;
        assert_eq!(host.lease.as_ref().unwrap().1.ends(7), None, "not before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stopped_with_the_lease_says_so_and_starts_in_the_next_epoch_that_is_not_fenced() {
    let mut host = host();
    let uid = pod(&host);
    let heartbeats = Heartbeats::hold(&host, 7);
    host.until("db-0", "ready", is_ready).await;
    let first = pids(&host, &uid).await;
    heartbeats.cease().await;
    host.lease.as_ref().unwrap().0.send_replace(Lease::Over(7));
    node::end_of_leased_pods(&host.folder.path().join("agent")).await;
    assert!(!first.iter().any(|pid| is_alive(pid)), "what is over is over before the next one begins");
    let stopped =
        host.until("db-0", "stopped", |pod| main_status(pod)["restartCount"] == 1 && waits(pod)).await;
    let last = &main_status(&stopped)["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("HostLeaseEnded")));
    host.until_event("HostLeaseEnded", |message| message.contains("Stopped container main")).await;

    // Somebody has fenced what is next, too: another pod has started by the time at which this one would have.
    let mut node = host.writer.get("nodes", "", "n1").unwrap();
    node["metadata"]["annotations"][FENCED_EPOCH] = "8".into();
    host.writer.put(&node);
    let heartbeats = Heartbeats::hold(&host, 8);
    host.pod("other", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("other", "ready", is_ready).await;
    heartbeats.cease().await;
    let heartbeats = Heartbeats::hold(&host, 9);
    let again = host.until("db-0", "ready again", is_ready).await;
    assert!(condition(&again, STOPS_WITH_LEASE).unwrap()["message"].as_str().unwrap().contains("epoch 9"));
    assert_eq!(pids(&host, &uid).await.len(), 2, "it started once");
    host.shut_down().await;
    heartbeats.cease().await;
    assert!(host.shims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_on_under_the_next_agent_while_the_lease_does() {
    let mut host = host();
    let uid = pod(&host);
    let heartbeats = Heartbeats::hold(&host, 7);
    host.until("db-0", "ready", is_ready).await;
    let pids = pids(&host, &uid).await;
    let data = host.folder.path().join("agent");
    drop(host.agent.take());
    let page = node::end_former_pods(&data, &[]).await.expect("a lease by which something runs");
    assert!(page.ends(7).is_some());
    host.switch_on();
    host.change("db-0", |pod| pod["status"]["phase"] = "Pending".into());
    let pod = host.until("db-0", "looked after again", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    assert!(pids.iter().all(|pid| is_alive(pid)));
    drop(host.agent.take());
    heartbeats.cease().await;
    page.set(7, Some(boottime()));
    assert!(node::end_former_pods(&data, &[]).await.is_none(), "its lease is over");
    assert!(!pids.iter().any(|pid| is_alive(pid)) && host.shims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_could_fence_the_host_a_pod_runs_without_a_lease_and_says_so() {
    let mut host = TestHost::off();
    host.lease = Some((watch::Sender::new(Lease::Awaited(7)), LeasePage::create().unwrap()));
    host.members = 2;
    host.switch_on();
    pod(&host);
    let said = host.until("db-0", "ready", is_ready).await;
    assert!(condition(&said, STOPS_WITH_LEASE).is_none());
    assert_eq!(host.shims().len(), 1, "it has no keeper");
    // As somebody may have written it, or an agent that started the pod otherwise.
    host.change("db-0", |pod| {
        let said = json!({"type": STOPS_WITH_LEASE, "status": "True"});
        pod["status"]["conditions"].as_array_mut().unwrap().push(said);
    });
    let is_taken_back =
        |pod: &Value| condition(pod, STOPS_WITH_LEASE).is_some_and(|c| c["status"] == "False");
    host.until("db-0", "taking it back", is_taken_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_takes_its_pod_with_it() {
    let mut host = host();
    let uid = pod(&host);
    let _heartbeats = Heartbeats::hold(&host, 7);
    host.until("db-0", "ready", is_ready).await;
    let pids = pids(&host, &uid).await;
    drop(host.agent.take());
    let keeper = host.shims().into_iter().find(|pid| name(*pid).trim() == "holdfast-keeper").unwrap();
    // SAFETY: a system call on numbers; the process is one of this test's own host.
    unsafe { libc::kill(keeper, libc::SIGKILL) };
    until_dead(&host, &pids).await;
}
