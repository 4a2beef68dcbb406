//! Pods' cgroups, on a machine that gives them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;

use serde_json::json;
use support::cgroups::Top;
use support::{TestHost, can_mount, is_alive, is_ready, main_status};

fn annotation(host: &TestHost) -> Option<String> {
    let node = host.writer.get("nodes", "", "n1")?;
    Some(node["metadata"]["annotations"]["holdfast.dev/cgroups"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_processes_are_in_a_cgroup_of_their_own_that_goes_with_it() {
    if let Some(top) = Top::make("own") {
        pods_have_their_own(top).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_are_where_there_is_only_version_1() {
    if let Some(top) = Top::make_old("own") {
        pods_have_their_own(top).await;
    }
}

async fn pods_have_their_own(top: Top) {
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
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
    let path = format!("/{}\n", cgroup.strip_prefix(top.0[0].parent().unwrap()).unwrap().display());
    assert!(read("probed").contains(&path), "a command beside it is there too: {}", read("probed"));
    let controllers = annotation(&host).unwrap();
    let has = |controller: &str, value: &str| controllers.contains(controller).then(|| value.to_owned());
    for whose in ["", "main"] {
        assert_eq!(
            top.limits(&uid, whose),
            (has("cpu", "50000"), has("memory", "67108864")),
            "{whose} of {controllers}"
        );
        let weight = top.read(&uid, whose, "cpu.weight").or_else(|| top.read(&uid, whose, "cpu.shares"));
        assert_eq!(weight.is_some(), controllers.contains("cpu"));
        assert!(weight.is_none_or(|weight| weight == "20" || weight == "512"));
    }
    host.delete("a", 0);
    host.until_gone("a").await;
    assert!(top.of(&uid).is_none() && !is_alive(&pid) && !is_alive(&stray));
    host.shut_down().await;
    assert!(top.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_life_used_is_not_counted_to_the_next() {
    let Some(top) = Top::make("lives") else { return };
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    // The first life works, and leaves something behind that ends with it; the second does nothing.
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000 & : > worked; \
                until [ -e go ]; do sleep 0.02; done; rm go; exit 1";
    let command = format!("if [ -e worked ]; then exec sleep 1000; fi; {work}");
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    host.until_file(&host.work(&uid).join("worked"), |_| true).await;
    let used = || -> u64 {
        let stat = top.read(&uid, "main", "cpu.stat").unwrap_or_default();
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).map(str::to_owned);
        micros.or_else(|| top.read(&uid, "main", "cpuacct.usage")).unwrap().parse().unwrap()
    };
    let first = used();
    fs::write(host.work(&uid).join("go"), "").unwrap();
    host.until("a", "its second life", |pod| main_status(pod)["restartCount"] == 1 && is_ready(pod)).await;
    let second = used();
    assert!(second < first, "{second} after {first}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_is_found_by_its_cgroup_alone() {
    let Some(top) = Top::make("left") else { return };
    if !can_mount() {
        return;
    }
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
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
    host.cgroups = vec![host.folder.path().to_owned()];
    host.switch_on();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "ready", is_ready).await;
    assert_eq!(annotation(&host).as_deref(), Some("none"));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cgroup_that_cannot_be_made_is_the_reason_why_a_container_does_not_start() {
    let Some(top) = Top::make("unmade") else { return };
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    // Somebody removes those of the host, so that none can be made in them.
    let ours = top.0.iter().map(|top| top.join("holdfast"));
    for own in ours.flat_map(|ours| fs::read_dir(ours).into_iter().flatten().flatten()) {
        if own.path().is_dir() {
            fs::remove_dir(own.path()).unwrap();
        }
    }
    let uid = host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    let last = |pod: &serde_json::Value| main_status(pod)["lastState"]["terminated"].clone();
    let pod = host.until("a", "not started", |pod| last(pod).is_object()).await;
    let last = last(&pod);
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("StartError"), &json!(128)));
    assert!(last["message"].as_str().unwrap().contains("can't make the container's cgroup"), "{last}");
    host.until_event("Failed", |told| told.contains("can't make the container's cgroup")).await;
    host.delete("a", 0);
    host.until_gone("a").await;
    host.until_put_away(&uid).await;
    host.shut_down().await;
    assert!(top.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forks_without_end_leaves_room_for_others() {
    let Some(top) = Top::make("bomb") else { return };
    if !top.bound_processes(64) {
        testing::skip("cgroups", "no controller here bounds the number of processes");
        return;
    }
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    let command = "sh -c 'while :; do sleep 1000 & done'; : > full; exec sleep 1000";
    let bomb = host.pod("bomb", json!({"command": ["sh", "-c", command]}), json!({}));
    host.until_file(&host.work(&bomb).join("full"), |_| true).await;
    assert_eq!(top.read(&bomb, "", "pids.max").as_deref(), Some("28"), "half of nine tenths");
    let other = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; : > full; wait";
    let probe = json!({"exec": {"command": ["test", "-e", "full"]}});
    let other = json!({"command": ["sh", "-c", other], "readinessProbe": probe});
    host.pod("other", other, json!({}));
    host.until("other", "ready", is_ready).await;
    host.delete("bomb", 0);
    host.until_gone("bomb").await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forks_without_end_is_killed_where_nothing_kills_a_cgroup_at_once() {
    let Some(top) = Top::make_old("forks") else { return };
    let mut host = TestHost::off();
    host.cgroups = top.0.clone();
    host.switch_on();
    // Each makes the next one in a session of its own, and ends.
    let command = "echo 'setsid sh ./next & exit' > next; setsid sh ./next & : > begun; exec sleep 1000";
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    host.until_file(&host.work(&uid).join("begun"), |_| true).await;
    host.until("a", "ready", is_ready).await;
    host.delete("a", 0);
    host.until_gone("a").await;
    assert!(top.of(&uid).is_none());
    host.shut_down().await;
    assert!(top.is_empty());
}
