//! The StatefulSet of a cluster for tests: each of its pods is a server of its own, which a test may let live on when its host is lost.

use crate::fake_cluster::{FakeCluster, condition};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// What runs, by the path of its pod.
#[derive(Default)]
pub(crate) struct FakeProcesses(Mutex<BTreeMap<String, Process>>);

struct Process {
    host: String,
    answer: String,
    serving: AbortHandle,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What an instance of a pod answers.
pub(crate) fn signed(pod: &str, instance: &str, host: &str) -> String {
    format!("{pod}\ninstance: {instance}\nhost: {host}\n")
}

fn start(answer: String) -> (u16, AbortHandle) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut asked, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                drop(asked.read(&mut [0; 4096]).await);
                drop(asked.write_all((head + &answer).as_bytes()).await);
            });
        }
    });
    (port, serving.abort_handle())
}

impl FakeCluster {
    /// Makes the pods of a StatefulSet, one on each host.
    pub(crate) fn make_stateful(&self, set: &str) {
        for (number, host) in ["n1", "n2", "n3"].into_iter().enumerate() {
            self.start_stateful(set, &format!("db-{number}"), host);
        }
        let mut object = self.get(set).unwrap();
        object["status"] = json!({"readyReplicas": 3});
        self.put(set, object);
    }

    /// A pod of that name, with a process of its own.
    fn start_stateful(&self, set: &str, name: &str, host: &str) {
        let namespace = set.split('/').nth(5).unwrap();
        let uid = self.next_name();
        let answer = signed(name, &uid, host);
        let (port, serving) = start(answer.clone());
        let pod = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": uid},
            "spec": {"nodeName": host, "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"podIP": "127.0.0.1", "conditions": condition(true),
                "containerStatuses": [{"state": {"running": {}}}]}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let process = Process { host: host.to_owned(), answer, serving };
        // A former one of the name that lives on is another process.
        self.processes.0.lock().unwrap().insert(path.clone(), process);
        self.put(&path, pod);
    }

    /// What the pod's process answers, if it runs on a host that is on.
    pub(crate) fn answer_of(&self, pod: &Value) -> Option<String> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let path =
            format!("/api/v1/namespaces/{}/pods/{}", text("/metadata/namespace"), text("/metadata/name"));
        let processes = self.processes.0.lock().unwrap();
        let process = processes.get(&path).filter(|process| !process.serving.is_finished())?;
        Some(process.answer.clone()).filter(|_| self.on().contains(&process.host))
    }

    /// Ends what runs on a host, after a time in which it goes on unknown to the others.
    pub(crate) fn lose_stateful(&self, host: &str, lives_on: Duration) -> Vec<(String, String)> {
        let mut processes = self.processes.0.lock().unwrap();
        let lost: Vec<String> =
            processes.iter().filter(|(_, p)| p.host == host).map(|(path, _)| path.clone()).collect();
        let ended = lost.iter().filter_map(|path| processes.remove(path)).collect::<Vec<_>>();
        tokio::spawn(async move {
            tokio::time::sleep(lives_on).await;
            drop(ended);
        });
        let sets = self.found(|path| path.contains("/statefulsets/"));
        lost.into_iter().flat_map(|pod| sets.first().map(|(set, _)| (set.clone(), pod))).collect()
    }

    /// Marks the host as fenced, and makes its pods anew elsewhere.
    pub(crate) fn replace_stateful(&self, host: &str, lost: Vec<(String, String)>) {
        let path = format!("/api/v1/nodes/{host}");
        let mut node = self.get(&path).unwrap();
        node["metadata"]["annotations"] =
            json!({"holdfast.dev/lease-epoch": "1", "holdfast.dev/fenced-epoch": "1"});
        self.put(&path, node);
        for (set, pod) in lost {
            self.remove(&pod);
            let on = self.on();
            self.start_stateful(&set, pod.rsplit('/').next().unwrap(), on.last().unwrap());
        }
    }
}
