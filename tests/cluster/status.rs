//! `holdfast status` of a cluster that is well, of one with a host that hangs, and of one that nobody can be asked about.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Cluster, HOLDFAST, text, wait_for};

fn asked(cluster: &Cluster) -> (Value, Option<i32>) {
    let output = cluster.holdfast(&["status", "-o", "json"]);
    let said =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    (said, output.status.code())
}

/// What is worse than a note, but for what this machine's disk may be short of.
fn complaints(said: &Value) -> Vec<&str> {
    let findings = said["findings"].as_array().unwrap();
    let findings =
        findings.iter().filter(|finding| !matches!(finding["grade"].as_str(), Some("ok" | "note")));
    let what = findings.map(|finding| finding["what"].as_str().unwrap());
    what.filter(|what| !what.contains("Pressure")).collect()
}

#[tokio::test]
async fn a_status_tells_how_the_hosts_are_and_what_would_break_the_cluster() {
    let cluster = Cluster::up().await;
    // Leases are held some heartbeats after the start.
    let (said, code) = wait_for("nothing to complain of", || async {
        let (said, code) = asked(&cluster);
        complaints(&said).is_empty().then_some((said, code))
    })
    .await;
    assert_eq!(code, Some(i32::from(said["isWell"] == false)), "{said:#}");
    let leader = said["leader"].as_str().unwrap().to_owned();
    let hosts = said["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 3, "{said:#}");
    for host in hosts {
        let role = if host["name"] == *leader { "leader" } else { "member" };
        assert_eq!((&host["role"], &host["fencing"]), (&role.into(), &"lease".into()), "{said:#}");
        assert!(
            host["caughtUpMs"].as_f64().is_some() && host["leaseSeconds"].as_f64() > Some(0.0),
            "{said:#}"
        );
        assert_eq!(host["version"], env!("CARGO_PKG_VERSION"));
        assert!(host["firstCertificateEnds"].is_string(), "{said:#}");
    }
    assert_eq!(
        (&said["addresses"][0]["of"], &said["addresses"][0]["holder"]),
        (&"the API".into(), &leader.into())
    );
    let margin =
        said["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "margin").unwrap();
    assert_eq!(margin["what"], "3 of 3 members are ready: the cluster bears the loss of 1");

    // On a busy machine a host may be too late for one look.
    let shown = wait_for("all hosts to answer", || async {
        let shown = text(&cluster.holdfast(&["status"]));
        shown.starts_with("3 hosts, n").then_some(shown)
    })
    .await;
    assert!(shown.contains("\nHOST  STATE"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(!shown.contains('\x1b'), "no colours for a file: {shown}");

    cluster.signal_host("n3", libc::SIGSTOP);
    // The others may have to elect a leader first.
    let (said, code) = wait_for("what would break the cluster", || async {
        let output = cluster.holdfast(&["status", "-o", "json"]);
        let said: Value = serde_json::from_slice(&output.stdout).ok()?;
        let is_told = |what: &&str| *what == "2 of 3 members are ready: one more loss and the cluster stops";
        let is_led = said["leader"].is_string();
        // Asked just after the stop, the others may not have missed it yet.
        let is_missed = said["hosts"][2]["state"].as_str()?.starts_with("silent ");
        (is_led && is_missed && complaints(&said).iter().any(is_told))
            .then(|| (said.clone(), output.status.code()))
    })
    .await;
    wait_for("both of the others to answer", || async {
        let shown = text(&cluster.holdfast(&["status"]));
        shown.starts_with("3 hosts, of which 2 answer; n").then_some(())
    })
    .await;
    cluster.signal_host("n3", libc::SIGCONT);
    assert_eq!(code, Some(1));
    assert!(["n1", "n2"].contains(&said["leader"].as_str().unwrap()), "{said:#}");
    let n3 = &said["hosts"][2];
    assert!(n3["state"].as_str().unwrap().starts_with("silent "), "{said:#}");
    assert!(n3["behind"].is_null() && n3["leaseSeconds"].is_null(), "{said:#}");
    assert!(complaints(&said).iter().any(|what| what.starts_with("n3 is silent: no heartbeat")), "{said:#}");
}

#[tokio::test]
async fn nobody_to_ask_is_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}",
    )
    .unwrap();
    for (kubeconfig, why) in
        [(&kubeconfig, "no host of the cluster answers"), (&dir.path().join("none"), "none")]
    {
        let output = Command::new(HOLDFAST)
            .args(["status", "-o", "json", "--kubeconfig"])
            .arg(kubeconfig)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said["error"].as_str().is_some_and(|error| error.contains(why)), "{said}");
    }
}
