//! Pods that must not run twice, and the lease of their host: they start in it, and stop with it whatever becomes of the agent.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use membership::lease::Epoch;
use membership::{Lease, LeasePage, boottime};
use objects::{FENCED_EPOCH, FENCING, LEASE_EPOCH, STOPS_WITH_LEASE};
use serde_json::{Value, json};
use support::{TestHost, condition, is_alive, is_ready, main_status, members};
use tokio::sync::watch;

/// A lease that its host's heartbeats renew.
const LEASE: Duration = Duration::from_secs(2);

/// The uid of the pod that must not run twice.
const UID: &str = "uid-of-db-0";

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
fn pod(host: &TestHost) {
    let command = "setsid sleep 1000 & echo $! >> pids; echo $$$$ >> pids; echo >> pids; wait";
    host.writer.put(&json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "db-0", "namespace": "default", "uid": UID, "generation": 1, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]},
        "spec": {"nodeName": "n1", "runtimeClassName": "host",
            "containers": [{"name": "main", "command": ["sh", "-c", command]}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }));
}

async fn pids(host: &TestHost) -> Vec<String> {
    let file = host.work(UID).join("pids");
    let text = host.until_file(&file, |text| text.ends_with("\n\n")).await;
    std::fs::remove_file(file).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

/// A host in its lease's epoch 7, whose pod runs, with the pod's processes.
async fn running() -> (TestHost, Heartbeats, Vec<String>) {
    let host = host();
    pod(&host);
    let heartbeats = Heartbeats::hold(&host, 7);
    host.until("db-0", "ready", is_ready).await;
    let pids = pids(&host).await;
    (host, heartbeats, pids)
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

/// What the processes of a pod are called that stops with the lease.
const SHIM: &str = "holdfast-shim";
const KEEPER: &str = "holdfast-keeper";

fn process_of(host: &TestHost, wanted: &str) -> i32 {
    host.shims().into_iter().find(|pid| name(*pid).trim() == wanted).unwrap()
}

/// Whether the lock is held by which others see that something is left here that must not run twice.
fn is_left(host: &TestHost) -> bool {
    let pods = std::fs::File::open(node::pods_dir(&host.folder.path().join("agent"))).unwrap();
    // SAFETY: a system call on numbers. What it gets ends with the file.
    unsafe { libc::flock(pods.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
}

fn says(pod: &Value, status: &str) -> bool {
    condition(pod, STOPS_WITH_LEASE).is_some_and(|condition| condition["status"] == status)
}

fn waits(pod: &Value) -> bool {
    main_status(pod)["state"]["waiting"]["reason"] == "HostLeaseAwaited"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_once_its_host_holds_its_lease_and_dies_with_it_without_agent_and_shim() {
    for stopped in [None, Some(SHIM)] {
        let mut host = host();
        pod(&host);
        host.until("db-0", "waiting", waits).await;
        assert!(host.shims().is_empty());
        assert!(!host.pod_folder(UID).exists(), "another host may have its volumes");
        let heartbeats = Heartbeats::hold(&host, 7);
        let said = host.until("db-0", "ready", is_ready).await;
        let condition = condition(&said, STOPS_WITH_LEASE).unwrap();
        assert!(condition["status"] == "True" && condition["message"].as_str().unwrap().contains("epoch 7"));
        let node = host.writer.get("nodes", "", "n1").unwrap();
        let node = &node["metadata"]["annotations"];
        assert_eq!((&node[FENCING], &node[LEASE_EPOCH]), (&json!("lease"), &json!("7")));
        let pids = pids(&host).await;
        // The agent is gone, and the shim does nothing.
        drop(host.agent.take());
        for shim in host.shims().into_iter().filter(|pid| Some(name(*pid).trim()) == stopped) {
            // SAFETY: a system call on numbers; the process is a shim of this test's own host.
            unsafe { libc::kill(shim, libc::SIGSTOP) };
        }
        assert!(pids.iter().all(|pid| is_alive(pid)) && is_left(&host));
        heartbeats.cease().await;
        until_dead(&host, &pids).await;
        // A process that ends shows nothing of itself before its files are closed.
        let free = async {
            while is_left(&host) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(support::PATIENCE, free).await.expect("the lock ends with the last of them");
        assert_eq!(host.lease.as_ref().unwrap().1.ends(7), None, "not before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stopped_with_the_lease_says_so_and_starts_in_the_next_epoch_that_is_not_fenced() {
    let (mut host, heartbeats, first) = running().await;
    heartbeats.cease().await;
    let (state, page) = host.lease.as_ref().unwrap();
    page.set(7, None);
    state.send_replace(Lease::Over(7));
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
    assert_eq!(pids(&host).await.len(), 2, "it started once");
    host.shut_down().await;
    heartbeats.cease().await;
    // A keeper ends after its shim, and nobody waits for it.
    until_dead(&host, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_on_under_the_next_agent_while_the_lease_does() {
    let (mut host, heartbeats, pids) = running().await;
    let data = host.folder.path().join("agent");
    drop(host.agent.take());
    let page = node::end_former_pods(&data, &[], None).await.expect("a lease by which something runs");
    assert!(page.ends(7).is_some());
    host.switch_on();
    host.change("db-0", |pod| pod["status"]["phase"] = "Pending".into());
    let pod = host.until("db-0", "looked after again", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    assert!(pids.iter().all(|pid| is_alive(pid)));
    drop(host.agent.take());
    heartbeats.cease().await;
    page.set(7, Some(boottime()));
    assert!(node::end_former_pods(&data, &[], None).await.is_none(), "its lease is over");
    assert!(!pids.iter().any(|pid| is_alive(pid)) && host.shims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_could_fence_the_host_a_pod_says_that_it_has_no_lease_until_it_is_made_anew_elsewise() {
    let mut host = host();
    host.members.send_replace(members(2));
    pod(&host);
    let says_no = |pod: &Value| is_ready(pod) && says(pod, "False");
    let said = host.until("db-0", "ready without", says_no).await;
    assert_eq!(condition(&said, STOPS_WITH_LEASE).unwrap()["reason"], "StartedWithoutLease");
    assert_eq!(host.shims().len(), 1, "it has no keeper");
    let first = pids(&host).await;
    // As somebody may have written it, or an agent that started the pod otherwise.
    host.change("db-0", |pod| {
        let all = pod["status"]["conditions"].as_array_mut().unwrap();
        all.iter_mut().find(|c| c["type"] == STOPS_WITH_LEASE).unwrap()["status"] = "True".into();
    });
    host.until("db-0", "taking it back", says_no).await;

    // There are three now. What runs goes on as it is; its next shim holds it by the lease.
    host.members.send_replace(members(3));
    let heartbeats = Heartbeats::hold(&host, 7);
    host.pod("other", json!({"command": ["sleep", "1000"]}), json!({}));
    let other = host.until("other", "ready", is_ready).await;
    assert!(condition(&other, STOPS_WITH_LEASE).is_none(), "it may run twice");
    assert!(first.iter().all(|pid| is_alive(pid)));
    host.kill_shims();
    host.until("db-0", "saying that it stops with it", |pod| says(pod, "True")).await;
    assert!(!first.iter().any(|pid| is_alive(pid)), "what no keeper would stop is over by then");
    host.until("db-0", "ready with", |pod| is_ready(pod) && main_status(pod)["restartCount"] == 1).await;
    assert_eq!(pids(&host).await.len(), 2, "it started once");
    host.until_event("StartedWithoutLease", |message| message.contains("must not run twice")).await;
    host.shut_down().await;
    heartbeats.cease().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_host_is_fenced_while_its_volumes_are_made_does_not_start() {
    let mut host = host();
    host.addresses.2.send_replace(true);
    pod(&host);
    let heartbeats = Heartbeats::hold(&host, 7);
    let wait = async {
        while host.addresses.2.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, wait).await.expect("it is being made");
    host.until("db-0", "in its host's lease", |pod| says(pod, "True") && !waits(pod)).await;
    let mut node = host.writer.get("nodes", "", "n1").unwrap();
    node["metadata"]["annotations"][FENCED_EPOCH] = "7".into();
    host.writer.put(&node);
    host.addresses.2.send_replace(false);
    host.until("db-0", "waiting", waits).await;
    assert!(host.shims().is_empty());
    heartbeats.cease().await;
    let heartbeats = Heartbeats::hold(&host, 8);
    host.until("db-0", "ready", is_ready).await;
    host.shut_down().await;
    heartbeats.cease().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_the_keeper_refuses_since_the_lease_is_over_counts_as_none() {
    let (mut host, heartbeats, _) = running().await;
    // Nobody has told the agent yet.
    heartbeats.cease().await;
    host.until_event("HostLeaseAwaited", |message| message.contains("ended before")).await;
    let heartbeats = Heartbeats::hold(&host, 8);
    let again = host.until("db-0", "ready again", |pod| is_ready(pod) && says(pod, "True")).await;
    let status = main_status(&again);
    assert_eq!((&status["restartCount"], pids(&host).await.len()), (&json!(1), 2));
    assert_eq!(status["lastState"]["terminated"]["reason"], "HostLeaseEnded");
    host.shut_down().await;
    heartbeats.cease().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_no_keeper_stops_and_whose_shim_does_nothing_is_over_before_the_next_epoch() {
    let (mut host, heartbeats, pids) = running().await;
    drop(host.agent.take());
    for (process, signal) in [(SHIM, libc::SIGSTOP), (KEEPER, libc::SIGKILL)] {
        // SAFETY: a system call on numbers; the process is one of this test's own host.
        unsafe { libc::kill(process_of(&host, process), signal) };
    }
    heartbeats.cease().await;
    let data = host.folder.path().join("agent");
    let end = tokio::time::timeout(support::PATIENCE, node::end_of_leased_pods(&data));
    end.await.expect("the next epoch begins");
    assert!(!pids.iter().any(|pid| is_alive(pid)));
    until_dead(&host, &pids).await;
}

/// What keeps a process as it is: neither runs it nor does it stop, as one that waits for a disk. It can be killed.
struct Frozen(PathBuf);

impl Frozen {
    fn make(pid: i32) -> Option<Self> {
        let root = node::cgroup_roots().into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let folder = root.join(format!("holdfast-test-{}-frozen", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let frozen = Frozen(folder);
        std::fs::write(frozen.0.join("cgroup.procs"), pid.to_string()).ok()?;
        std::fs::write(frozen.0.join("cgroup.freeze"), "1").ok()?;
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_does_not_wait_for_a_shim_that_cannot_be_stopped() {
    let (mut host, heartbeats, pids) = running().await;
    drop(host.agent.take());
    let Some(frozen) = Frozen::make(process_of(&host, SHIM)) else {
        return testing::skip("cgroups", "this user may make no cgroups of version 2");
    };
    let events = frozen.0.join("cgroup.events");
    host.until_file(&events, |text| text.contains("frozen 1")).await;
    heartbeats.cease().await;
    until_dead(&host, &pids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_takes_its_pod_with_it() {
    let (mut host, _heartbeats, pids) = running().await;
    drop(host.agent.take());
    // SAFETY: a system call on numbers; the process is one of this test's own host.
    unsafe { libc::kill(process_of(&host, KEEPER), libc::SIGKILL) };
    until_dead(&host, &pids).await;
}
