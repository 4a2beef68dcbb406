//! `holdfast check` on a host of a cluster that runs, and while another one hangs.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, HOLDFAST, wait_for};

/// What `check` says about n1, and its exit code.
fn check(cluster: &Cluster, more: &[&str]) -> (Vec<Value>, Option<i32>) {
    let config = cluster.folder().join("n1/config.json");
    let output = Command::new(HOLDFAST)
        .args(["check", "-o", "json", "--config"])
        .arg(config)
        .args(more)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let Value::Array(findings) = said["findings"].clone() else { panic!("{said}") };
    let faults = findings.iter().filter(|finding| finding["grade"] == "fault").count();
    assert_eq!(said["faults"], faults);
    assert_eq!(output.status.code(), Some(i32::from(faults > 0)), "{said:#}");
    (findings, output.status.code())
}

fn of<'a>(findings: &'a [Value], group: &str, check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["group"] == group && finding["check"] == check).collect()
}

/// Stops a check while it measures the disk: nothing is left beside the data folder.
async fn stopped_in_the_middle(config: &Path, signal: i32) {
    let is_measuring = || {
        let mut entries = config.parent().unwrap().read_dir().unwrap().filter_map(Result::ok);
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(".holdfast-check-"))
    };
    let mut check = Command::new(HOLDFAST)
        .args(["check", "--pre", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(check.id()).unwrap();
    // On a very fast disk it may be over before it is seen.
    let ended = wait_for("the file that is synced", || {
        let ended = check.try_wait().unwrap();
        let done = ended.is_some() || is_measuring();
        async move { done.then_some(ended) }
    })
    .await;
    if ended.is_none() {
        // SAFETY: kill has no memory effects; the process is this test's own child, which it hasn't waited for.
        unsafe { libc::kill(pid, signal) };
        let ended = check.wait().unwrap();
        assert!(matches!(ended.code(), Some(0 | 1 | 130)), "the signal was taken: {ended:?}");
    }
    assert!(!is_measuring(), "something is left");
}

#[tokio::test]
async fn a_running_host_is_checked_with_the_others() {
    // On loopback this process is in the hosts' network.
    let cluster = Cluster::with(3, "loopback").await;
    let kubeconfig = cluster.kubeconfig();
    let administrator = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    // Leases are held some heartbeats after the start.
    let findings = wait_for("leases", || async {
        let (findings, _) = check(&cluster, &administrator);
        of(&findings, "cluster", "leases").iter().all(|finding| finding["grade"] == "ok").then_some(findings)
    })
    .await;
    for (group, name, what) in [
        ("cluster", "margin", "3 of 3 members are ready: the cluster bears the loss of 1"),
        ("cluster", "skew", "the hosts' clocks agree, to two seconds"),
        ("cluster", "nodes", "all Nodes are Ready: n1, n2 and n3"),
        ("cluster", "leases", "n1, n2 and n3 hold their leases"),
        ("cluster", "virtual-address", "the API answers at the virtual address, 127.0.0.100:6443"),
        ("network", "address", "127.0.1.1 is the loopback's"),
    ] {
        let found = of(&findings, group, name);
        assert!(
            found.len() == 1 && found[0]["what"] == what && found[0]["grade"] == "ok",
            "{name}: {found:?}"
        );
    }
    let ports = of(&findings, "ports", "ports");
    let held = ports.iter().find(|finding| finding["grade"] == "ok").unwrap();
    assert!(held["what"].as_str().unwrap().starts_with("ports 6443, 10250, 2381, 2380"), "{ports:?}");
    assert!(
        of(&findings, "certificates", "ends").iter().all(|finding| finding["grade"] == "ok"),
        "{findings:?}"
    );
    let (findings, _) = check(&cluster, &[]);
    assert_eq!(of(&findings, "cluster", "leases")[0]["grade"], "unseen", "hosts may not read metrics");
    assert_eq!(of(&findings, "cluster", "nodes")[0]["what"], "this host's Node is Ready");

    let config = cluster.folder().join("n1/config.json");
    for signal in [libc::SIGINT, libc::SIGTERM] {
        stopped_in_the_middle(&config, signal).await;
    }
    let refused = Command::new(HOLDFAST)
        .args(["check", "-o", "json", "--kubeconfig", "/nowhere", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "no fault of the host");
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert!(said["error"].as_str().unwrap().contains("/nowhere"), "{said}");

    cluster.signal_host("n3", libc::SIGSTOP);
    // The others may have to elect a leader first.
    let (findings, code) = wait_for("what would break the cluster", || async {
        let (findings, code) = check(&cluster, &administrator);
        let margin = of(&findings, "cluster", "margin")[0];
        let is_told = margin["what"] == "2 of 3 members are ready: one more loss and the cluster stops";
        (is_told && margin["remedy"] == "bring n3 back").then_some((findings, code))
    })
    .await;
    cluster.signal_host("n3", libc::SIGCONT);
    assert_eq!(code, Some(1));
    let hosts = of(&findings, "cluster", "hosts");
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert!(
        hosts[0]["what"].as_str().unwrap().starts_with("n3 doesn't answer at 127.0.3.1:6443: "),
        "{hosts:?}"
    );
}
