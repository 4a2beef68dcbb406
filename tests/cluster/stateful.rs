//! A host that stops without a word: its StatefulSet pods run elsewhere, and never twice.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::harness::{Cluster, wait_for};

/// The times at which a pod's process lived, in nanoseconds: it writes one down all the time.
fn beats(pods: &[PathBuf], uid: &str) -> Vec<u64> {
    let file = pods.iter().map(|pods| pods.join(uid).join("work/beats")).find(|file| file.exists());
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

/// The folders in which hosts keep their pods' folders.
fn pods_of_hosts(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![(folder.to_owned(), 0)]);
    while let Some((folder, depth)) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_name() == "pods" {
                true => found.push(entry.path()),
                false if depth < 4 && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    todo.push((entry.path(), depth + 1));
                }
                false => {}
            }
        }
    }
    found
}

/// The uid of the pod that runs under this name, and its host.
async fn running(client: &Client, name: &str) -> Option<(String, String)> {
    let pod = Api::<Pod>::default_namespaced(client.clone()).get(name).await.ok()?;
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let host = pod.spec.as_ref()?.node_name.clone()?;
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then(|| (pod.uid().unwrap_or_default(), host))
}

/// Makes a set of three such pods, and returns once all of them run.
async fn run_set(client: &Client) {
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "db"},
        "spec": {"replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {
                "runtimeClassName": "host", "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main",
                    "command": ["sh", "-c", "while date +%s%N >> beats; do sleep 0.01; done"]}]}}},
    }))
    .unwrap();
    Api::<StatefulSet>::default_namespaced(client.clone())
        .create(&PostParams::default(), &set)
        .await
        .unwrap();
    for name in ["db-0", "db-1", "db-2"] {
        wait_for(name, || running(client, name)).await;
    }
}

/// Stops the host of `db-1`, and returns it with the uid of the pod that runs elsewhere then, once the former one was dead.
async fn stop_host(cluster: &Cluster, client: &Client) -> (String, String) {
    let (former, host) = wait_for("db-1", || running(client, "db-1")).await;
    // The kubeconfig's address follows the leader, which may be this host.
    cluster.signal_host(&host, libc::SIGSTOP);
    let (present, other) = wait_for("db-1 elsewhere", || async {
        running(client, "db-1").await.filter(|(uid, _)| *uid != former)
    })
    .await;
    assert_ne!(other, host);
    let pods = pods_of_hosts(&cluster.folder());
    let first =
        wait_for("what the new one writes", || async { beats(&pods, &present).first().copied() }).await;
    let last = *beats(&pods, &former).last().expect("what the old one wrote");
    assert!(last < first, "the old process lived until {last}, the new one since {first}");
    assert_eq!(cluster.happened("node-fenced", &host), 1);
    (host, present)
}

/// Lets the host go on, which comes back and finds its pod elsewhere.
async fn go_on(cluster: &Cluster, client: &Client, host: &str, present: &str) {
    cluster.signal_host(host, libc::SIGCONT);
    wait_for("the host to be back", || async {
        let node = Api::<Node>::all(client.clone()).get(host).await.ok()?;
        let is_fenced = node.annotations().contains_key(objects::FENCED_EPOCH);
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).count();
        (!is_fenced && taints == 0).then_some(())
    })
    .await;
    let (now, _) = wait_for("db-1 as it is", || running(client, "db-1")).await;
    assert_eq!(now, present, "nobody moves it back");
}

#[tokio::test]
async fn a_stateful_pod_of_a_stopped_host_runs_elsewhere_and_only_once_it_is_dead() {
    let cluster = Cluster::up().await;
    let client = cluster.hasty_client().await.unwrap();
    run_set(&client).await;
    let (host, present) = stop_host(&cluster, &client).await;
    go_on(&cluster, &client, &host, &present).await;
}

/// An agent for every host, which writes down whom it switched off, and a lease whose count takes longer than any test.
async fn give_agents(cluster: &Cluster, client: &Client) {
    const HOSTS: [&str; 3] = ["n1", "n2", "n3"];
    let agent = cluster.dir().join("fence_file");
    // By another process: one that this process forks meanwhile would have it open for writing, and then it can't be executed.
    let mut write = Command::new("sh");
    write.args(["-c", r#"echo "$SCRIPT" > "$FILE" && chmod 755 "$FILE""#]).env("FILE", &agent);
    let told = cluster.dir().join("told");
    let script = r#"#!/bin/sh
        while IFS='=' read -r name value; do
            case $name in action) action=$value;; plug) plug=$value;; esac
        done
        [ "$action" = status ] && exit 2
        echo "$action $plug" >> "#;
    write.env("SCRIPT", format!("{script}'{}'", told.display()));
    assert!(write.status().unwrap().success());
    for host in HOSTS {
        let file = cluster.folder().join(host).join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["timeouts"]["lease"]["fencedAfter"] = "30m".into();
        for other in HOSTS {
            config["fencing"]["agents"][other] =
                json!({"program": agent, "parameters": {"plug": other}, "action": "off"});
        }
        std::fs::write(&file, config.to_string()).unwrap();
    }
    HOSTS.iter().for_each(|host| cluster.signal_host(host, libc::SIGUSR2));
    wait_for("hosts with agents", || async {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
        let has_agent = |node: &&Node| {
            node.annotations().get(objects::FENCING).is_some_and(|grades| grades == "lease,agent")
        };
        (nodes.items.iter().filter(has_agent).count() == HOSTS.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stateful_pod_runs_elsewhere_once_its_host_s_fence_agent_has_switched_that_off() {
    let cluster = Cluster::up().await;
    let client = cluster.hasty_client().await.unwrap();
    give_agents(&cluster, &client).await;
    run_set(&client).await;
    let (host, present) = stop_host(&cluster, &client).await;
    let told = std::fs::read_to_string(cluster.dir().join("told")).unwrap();
    assert_eq!(told, format!("off {host}\n"), "once, and nobody else");
    go_on(&cluster, &client, &host, &present).await;
}
