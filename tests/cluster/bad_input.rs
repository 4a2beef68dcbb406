//! Whatever a user gets wrong: one clear sentence, a non-zero exit, nothing lost.

use std::net::TcpListener;
use std::process::Command;

use crate::harness::{Cluster, HOLDFAST, text};

/// Runs the program; it must fail and say something that contains each of `words`.
fn refused(args: &[&str], words: &[&str]) {
    let output = Command::new(HOLDFAST).args(args).output().unwrap();
    let said = text(&output);
    assert!(!output.status.success(), "{args:?} was accepted: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} doesn't say {word:?}: {said}");
    }
}

#[test]
fn an_unknown_flag_or_value_is_named() {
    refused(&["drill", "--frobnicate"], &["--frobnicate"]);
    refused(&["up", "--nodes", "0"], &["--nodes"]);
    refused(&["up", "--net", "carrier-pigeon"], &["carrier-pigeon", "loopback"]);
    refused(&["up", "--dir", "/nowhere/cluster", "--static-pods", "/nowhere"], &["/nowhere is no folder"]);
    refused(&["drill", "--workload", "/nowhere.yaml"], &["/nowhere.yaml"]);
    refused(&["drill", "--workload", "mine.yaml", "--runtime", "oci"], &["leave --runtime out"]);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    refused(&["up", "--dir", dir.path().to_str().unwrap()], &[dir.path().to_str().unwrap()]);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn a_cause_is_said_once() {
    for args in [
        &["up", "--net", "loopback", "--port", "0", "--dir", "/proc/holdfast/cluster"][..],
        &["get", "pods", "--kubeconfig", "/dev/null/kubeconfig"],
    ] {
        let output = Command::new(HOLDFAST).args(args).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{args:?} was accepted: {said}");
        assert_eq!(said.matches("os error").count(), 1, "{args:?}: {said}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    if !testing::has_namespaces() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cluster");
    refused(
        &["up", "--net", "netns", "--port", &port, "--dir", folder.to_str().unwrap()],
        &[&port, "in use"],
    );
}

#[test]
fn a_folder_of_another_cluster_is_refused() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(dir.path(), 1, "auto");
        cluster.wait_until_ready(1).await;
        // While it runs: the folder is in use. Afterwards: it is a cluster of one host.
        let folder = cluster.folder();
        let folder = folder.to_str().unwrap();
        refused(&["up", "--nodes", "1", "--port", "0", "--dir", folder], &[folder, "runs on"]);
        drop(cluster);
        refused(&["up", "--nodes", "3", "--port", "0", "--dir", folder], &[folder, "--nodes 1"]);
    });
}

#[tokio::test]
async fn manifests_with_mistakes_are_refused_by_name() {
    let cluster = Cluster::with(1, "auto").await;
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replica: 3, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}}\n",
            "spec.replica",
        ),
        ("apiVersion: v1\nkind: Gizmo\nmetadata: {name: x}\n", "Gizmo"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'Not A Name'}\n", "metadata.name"),
        ("this: is: not yaml\n", "yaml"),
    ];
    for (n, (manifest, word)) in cases.iter().enumerate() {
        let file = dir.path().join(format!("{n}.yaml"));
        std::fs::write(&file, manifest).unwrap();
        let output = cluster.holdfast(&["apply", "-f", file.to_str().unwrap()]);
        let said = text(&output);
        assert!(!output.status.success(), "{manifest} was accepted: {said}");
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "it doesn't say {word:?}: {said}");
    }
    let output = cluster.holdfast(&["get", "gizmos"]);
    assert!(!output.status.success() && text(&output).contains("gizmos"), "{}", text(&output));
}
