//! A cluster of an earlier version of the program, whose folder (`fixtures`) this one takes over.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, text, wait_for};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cluster/fixtures/da6c5fb.tar.gz");
/// What was in it: the resource, its resource version and its UID.
const OBJECTS: [(&str, &str, &str); 4] = [
    ("configmap/settings", "76", "96297870-120d-4ce1-8094-c8d7c152f1ca"),
    ("secret/password", "38", "e648bee4-9cb4-44fc-8392-1d303c38b163"),
    ("lease/turn", "39", "43ce125f-f052-4062-8f39-54ea726b7974"),
    ("crate/one", "55", "c999ab7c-07e0-47e8-8407-238b202a499c"),
];

#[tokio::test]
async fn a_folder_of_an_earlier_version_has_all_that_was_in_it_while_it_is_written_to() {
    if !testing::has("tar") {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let unpacked =
        Command::new("tar").arg("-xzf").arg(FIXTURE).arg("-C").arg(temporary.path()).status().unwrap();
    assert!(unpacked.success());
    let cluster = Cluster::start(temporary.path(), 1, "loopback");
    cluster.wait_until_ready(1).await;
    let client = cluster.client().await.unwrap();
    let (end, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writing = tokio::spawn(write(client.clone(), end.clone(), written.clone()));

    unchanged(&cluster);
    let secret = found(&cluster, "secret/password");
    assert_eq!(secret["data"]["word"], "b3BlbiBzZXNhbWU=");
    assert_eq!(found(&cluster, "configmap/settings")["data"], json!({"colour": "green", "size": "small"}));
    assert_eq!(found(&cluster, "crate/one")["spec"], json!({"apples": 7}));
    wait_for("its pod", || async {
        (found(&cluster, "deployment/web")["status"]["readyReplicas"] == 1).then_some(())
    })
    .await;

    // And once more, in the middle of the writes, from what this version wrote.
    let process = cluster.pid_of_host("n1").unwrap();
    cluster.signal_host("n1", libc::SIGUSR2);
    wait_for("the host's next process", || async { cluster.pid_of_host("n1").filter(|pid| *pid != process) })
        .await;
    cluster.wait_until_ready(1).await;
    let before = written.load(Ordering::Relaxed);
    wait_for("more writes", || async { (written.load(Ordering::Relaxed) > before + 10).then_some(()) }).await;
    end.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.unwrap();
    unchanged(&cluster);
    let maps = Api::<ConfigMap>::namespaced(client, "shop");
    for name in &acknowledged {
        wait_for(name, || async { maps.get(name).await.ok() }).await;
    }
}

/// Writes until it is to end; the names of what was acknowledged.
async fn write(client: kube::Client, end: Arc<AtomicBool>, written: Arc<AtomicUsize>) -> Vec<String> {
    let maps = Api::<ConfigMap>::namespaced(client, "shop");
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("later-{number}");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        // A cluster of one host is away with it.
        if maps.create(&PostParams::default(), &map).await.is_ok() {
            acknowledged.push(name);
            written.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

fn unchanged(cluster: &Cluster) {
    for (name, version, uid) in OBJECTS {
        let metadata = &found(cluster, name)["metadata"];
        assert_eq!(
            (&metadata["resourceVersion"], &metadata["uid"]),
            (&json!(version), &json!(uid)),
            "{name}"
        );
    }
}

fn found(cluster: &Cluster, name: &str) -> Value {
    let output = cluster.holdfast(&["get", name, "-n", "shop", "-o", "json"]);
    assert!(output.status.success(), "{name}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}
