//! Hosts that are upgraded one after the other, while their cluster is asked all the time.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Client, Content, Kubeconfig};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::machine::{HOLDFAST, Machine};
use crate::wait_for;

/// How long a request may take: a change of leaders is within.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const MAP: &str = "/api/v1/namespaces/default/configmaps/asked";

/// Upgrades all hosts, which make up a cluster of three, and has a pod on each.
pub async fn one_after_the_other(folder: &Path, hosts: &mut [Machine], client: &kube::Client) {
    let at = |name: &str| folder.join(name).display().to_string();
    let script = |name: &str, text: &str| {
        std::fs::write(at(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        at(name)
    };
    std::fs::copy(HOLDFAST, at("new")).unwrap();
    let pods = pods(client).await;
    let first = &mut hosts[0];
    let before = first.process();

    // What must not be is refused before anything changes.
    for (text, told) in [
        ("echo holdfast 99.0.0", "upgrade all hosts to each minor version in between"),
        ("echo holdfast 0.0.1", "hosts go forward"),
        ("exit 1", "it doesn't tell its version"),
    ] {
        let wrong = script("wrong", text);
        let refused = first.fails_to_upgrade(&[wrong.as_str()]);
        assert!(refused.contains(told), "{told}: {refused}");
    }
    assert_eq!(first.process(), before, "it runs on");

    let asking = Asking::start(&first.kubeconfig(), client).await;
    // One that tells its version and doesn't come up: the former one is back.
    let version = concat!("echo holdfast ", env!("CARGO_PKG_VERSION"));
    let hollow = script("hollow", version);
    let undone = first.fails_to_upgrade(&[hollow.as_str(), "--within", "5"]);
    assert!(undone.contains("runs") && undone.contains("again"), "{undone}");
    let new = at("new");
    for host in hosts.iter_mut() {
        let before = host.process();
        let said = host.upgrades(&[new.as_str()]);
        assert!(said.contains("is Ready"), "{said}");
        assert_ne!(host.process(), before, "it is another process");
    }
    let (asked, failed) = asking.end().await;
    assert!(asked > 100, "asked {asked} times");
    assert!(failed.is_empty(), "{} of {asked} requests failed: {failed:?}", failed.len());
    let kept = self::pods(client).await;
    let mut same = kept.iter().filter(|(uid, _)| pods.iter().any(|(other, _)| other == uid));
    assert!(same.all(|(_, restarts)| *restarts == 0), "no pod is restarted: {kept:?}");
}

/// Of each pod its UID, and how often its containers were restarted.
async fn pods(client: &kube::Client) -> Vec<(String, i32)> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    // The host may just have left that its connection leads to.
    let list = || async { pods.list(&ListParams::default().labels("app=web")).await.ok() };
    let pods = wait_for("the list of pods", list).await;
    let about = |pod: &Pod| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        (pod.metadata.uid.clone().unwrap(), containers.map(|one| one.restart_count).sum::<i32>())
    };
    pods.iter().map(about).collect()
}

/// A user who reads and writes by turns, each time over a connection of its own.
struct Asking {
    end: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    async fn start(kubeconfig: &str, kube: &kube::Client) -> Self {
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "asked"}})).unwrap();
        Api::namespaced(kube.clone(), "default").create(&PostParams::default(), &map).await.unwrap();
        let client = Client::new(&Kubeconfig::load(Path::new(kubeconfig)).unwrap()).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(ask(client, end.clone()));
        Asking { end, task }
    }

    /// How often it asked, and what came of it where it failed.
    async fn end(self) -> (usize, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn ask(client: Client, end: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !end.load(Ordering::Relaxed) {
        let answer = match asked % 2 {
            0 => client.fresh(MAP, ANSWER).await,
            _ => {
                let patch = json!({"data": {"asked": asked.to_string()}});
                client.fresh_patch(MAP, Content::MergePatch, &patch, ANSWER).await
            }
        };
        match answer {
            Ok(answer) if answer.is_success() => {}
            Ok(answer) => failed.push(format!("{asked}: {} {:?}", answer.code, answer.body)),
            Err(error) => failed.push(format!("{asked}: {error}")),
        }
        asked += 1;
        tokio::time::sleep(PAUSE).await;
    }
    (asked, failed)
}
