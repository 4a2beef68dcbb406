//! Pods' cgroups, on a machine that gives them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{TestHost, can_mount, is_alive, is_ready, main_status};

/// A cgroup for one test, which goes with it.
struct Top(PathBuf);

impl Top {
    fn make(name: &str) -> Option<Top> {
        let top =
            node::cgroup_root().map(|root| root.join(format!("holdfast-test-{}-{name}", std::process::id())));
        let made = top.filter(|top| fs::create_dir(top).is_ok()).map(Top);
        let made = made.filter(|top| top.0.join("cgroup.kill").exists());
        if made.is_none() {
            testing::skip(
                "cgroups",
                "this user may make no cgroups of version 2, or the kernel can't kill them",
            );
        }
        made
    }

    /// The cgroup of a pod's container.
    fn of(&self, uid: &str) -> Option<PathBuf> {
        let hosts = fs::read_dir(self.0.join("holdfast")).ok()?.flatten();
        hosts.map(|host| host.path().join(format!("pod-{uid}/main"))).find(|container| container.exists())
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        fn remove(folder: &Path) {
            let children = fs::read_dir(folder).into_iter().flatten().flatten();
            children.filter(|child| child.path().is_dir()).for_each(|child| remove(&child.path()));
            let _ = fs::remove_dir(folder);
        }
        remove(&self.0);
    }
}

fn annotation(host: &TestHost) -> Option<String> {
    let node = host.writer.get("nodes", "", "n1")?;
    Some(node["metadata"]["annotations"]["holdfast.dev/cgroups"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_processes_are_in_a_cgroup_of_their_own_that_goes_with_it() {
    let Some(top) = Top::make("own") else { return };
    let mut host = TestHost::off();
    host.cgroups = Some(top.0.clone());
    host.switch_on();
    let command = "setsid sleep 1000 & echo $! > stray; echo $$$$ > pid; exec sleep 1000";
    let limits = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    let probe = json!({"exec": {"command": ["sh", "-c", "test -s pid && cat /proc/self/cgroup > probed"]}});
    let uid = host.pod(
        "a",
        json!({"command": ["sh", "-c", command], "resources": limits, "readinessProbe": probe}),
        json!({}),
    );
    host.until("a", "ready", is_ready).await;
    let read = |name: &str| fs::read_to_string(host.work(&uid).join(name)).unwrap();
    let (pid, stray) = (read("pid"), read("stray"));
    let cgroup = top.of(&uid).unwrap();
    let inside = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    for process in [&pid, &stray] {
        assert!(inside.lines().any(|line| line == process.trim()), "{process} of {inside}");
    }
    let path = format!("/{}\n", cgroup.strip_prefix(top.0.parent().unwrap()).unwrap().display());
    assert!(read("probed").contains(&path), "a command beside it is there too");
    let controllers = annotation(&host).unwrap();
    for (file, value) in [("cpu.max", "50000 100000"), ("cpu.weight", "20"), ("memory.max", "67108864")] {
        let has = controllers.split(',').any(|controller| file.starts_with(controller));
        assert_eq!(cgroup.join(file).exists(), has, "{file} of {controllers}");
        for cgroup in [&*cgroup, cgroup.parent().unwrap()].iter().filter(|_| has) {
            assert_eq!(fs::read_to_string(cgroup.join(file)).unwrap().trim(), value, "{file}");
        }
    }
    host.delete("a", 0);
    host.until_gone("a").await;
    assert!(top.of(&uid).is_none() && !is_alive(&pid) && !is_alive(&stray));
    host.shut_down().await;
    assert_eq!(
        fs::read_dir(top.0.join("holdfast")).unwrap().flatten().filter(|e| e.path().is_dir()).count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_life_used_is_not_counted_to_the_next() {
    let Some(top) = Top::make("lives") else { return };
    let mut host = TestHost::off();
    host.cgroups = Some(top.0.clone());
    host.switch_on();
    // The first life works, and leaves something behind that ends with it; the second does nothing.
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000 & : > worked; \
                until [ -e go ]; do sleep 0.02; done; rm go; exit 1";
    let command = format!("if [ -e worked ]; then exec sleep 1000; fi; {work}");
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    host.until_file(&host.work(&uid).join("worked"), |_| true).await;
    let used = || -> u64 {
        let stat = fs::read_to_string(top.of(&uid).unwrap().join("cpu.stat")).unwrap();
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
    };
    let first = used();
    fs::write(host.work(&uid).join("go"), "").unwrap();
    host.until("a", "its second life", |pod| main_status(pod)["restartCount"] == 1 && is_ready(pod)).await;
    let second = used();
    assert!(second < first, "{second} µs after {first} µs");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_is_found_by_its_cgroup_alone() {
    let Some(top) = Top::make("left") else { return };
    if !can_mount() {
        return;
    }
    let mut host = TestHost::off();
    host.cgroups = Some(top.0.clone());
    host.switch_on();
    // Neither variables nor mounts tell whose it is, and it has no parent that would.
    let strays = "umount /dev/termination-log; exec setsid sleep 1000";
    let command = format!("env -i unshare -m sh -c '{strays}' & echo $! > stray; exec sleep 1000");
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    let stray = host.until_file(&host.work(&uid).join("stray"), |text| text.ends_with('\n')).await;
    host.until("a", "ready", is_ready).await;
    let name = || fs::read_to_string(format!("/proc/{}/comm", stray.trim())).unwrap_or_default();
    while name() != "sleep\n" {
        assert!(is_alive(&stray), "it can't unmount");
        tokio::task::yield_now().await;
    }
    drop(host.agent.take());
    host.kill_shims();
    while !host.shims().is_empty() {
        tokio::task::yield_now().await;
    }
    host.writer.remove("pods", "default", "a");
    assert!(is_alive(&stray) && top.of(&uid).is_some());
    host.switch_on();
    while is_alive(&stray) || top.of(&uid).is_some() {
        tokio::task::yield_now().await;
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cgroups_pods_run_and_the_node_says_so() {
    let mut host = TestHost::off();
    host.cgroups = Some(host.folder.path().to_owned());
    host.switch_on();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "ready", is_ready).await;
    assert_eq!(annotation(&host).as_deref(), Some("none"));
    host.shut_down().await;
}
