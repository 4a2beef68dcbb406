//! A host that stops without a word: its StatefulSet pods run elsewhere, and never twice.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

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

#[tokio::test]
async fn a_stateful_pod_of_a_stopped_host_runs_elsewhere_and_only_once_it_is_dead() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
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
        wait_for(name, || running(&client, name)).await;
    }
    let (former, host) = wait_for("db-1", || running(&client, "db-1")).await;
    // The kubeconfig's address follows the leader, which may be this host.
    cluster.signal_host(&host, libc::SIGSTOP);
    let (present, other) = wait_for("db-1 elsewhere", || async {
        running(&client, "db-1").await.filter(|(uid, _)| *uid != former)
    })
    .await;
    assert_ne!(other, host);
    let pods = pods_of_hosts(&cluster.folder());
    let first =
        wait_for("what the new one writes", || async { beats(&pods, &present).first().copied() }).await;
    let last = *beats(&pods, &former).last().expect("what the old one wrote");
    assert!(last < first, "the old process lived until {last}, the new one since {first}");
    assert_eq!(cluster.happened("node-fenced", &host), 1);

    cluster.signal_host(&host, libc::SIGCONT);
    wait_for("the host to be back", || async {
        let node = Api::<Node>::all(client.clone()).get(&host).await.ok()?;
        let is_fenced = node.annotations().contains_key(objects::FENCED_EPOCH);
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).count();
        (!is_fenced && taints == 0).then_some(())
    })
    .await;
    let (now, _) = wait_for("db-1 as it is", || running(&client, "db-1")).await;
    assert_eq!(now, present, "nobody moves it back");
}
