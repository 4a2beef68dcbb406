//! A host's process that is killed, or leaves for an upgrade, restarts none of its pods.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, LogParams, PostParams};

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::{Cluster, HOLDFAST, wait_for};

async fn main_status(pods: &Api<Pod>, name: &str) -> Option<ContainerStatus> {
    pods.get(name).await.ok()?.status?.container_statuses?.into_iter().next()
}

fn numbers(log: &str) -> Vec<u64> {
    log.lines().skip(1).map(|line| line.parse().unwrap()).collect()
}

/// Prints its own number first, and then counts.
const COUNTS: &str = "echo $$$$; n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done";

fn pod(name: &str, command: &str, policy: &str) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {"nodeName": "n1", "runtimeClassName": "host", "terminationGracePeriodSeconds": 0,
            "restartPolicy": policy, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "command": ["sh", "-c", command]}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_killed_host_restarts_no_pod_and_loses_no_line() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
    let pods = Api::<Pod>::default_namespaced(client);
    let create = |name: &str, command: &str, policy: &str| {
        let (pods, pod) = (pods.clone(), pod(name, command, policy));
        async move { pods.create(&PostParams::default(), &pod).await.unwrap() }
    };
    let flag = cluster.dir().join("end");
    create("counter", COUNTS, "Always").await;
    let ends = format!("echo $$$$; while ! test -e {}; do sleep 0.01; done; exit 7", flag.display());
    create("ends", &ends, "Never").await;
    let is_ready = |name: &'static str| {
        let pods = pods.clone();
        async move { main_status(&pods, name).await.filter(|main| main.ready) }
    };
    let before = wait_for("the counter to be ready", || is_ready("counter")).await;
    wait_for("the other one to be ready", || is_ready("ends")).await;
    let log = || async { pods.logs("counter", &LogParams::default()).await.ok() };
    let pid_of = |log: &str| log.lines().next().unwrap().to_owned();
    let old = pid_of(&wait_for("its log", || async { log().await.filter(|log| log.contains('\n')) }).await);
    let ending = wait_for("the other's log", || async {
        pods.logs("ends", &LogParams::default()).await.ok().filter(|log| log.contains('\n'))
    })
    .await;

    cluster.signal_host("n1", libc::SIGKILL);
    std::fs::write(&flag, "").unwrap();
    let process = format!("/proc/{}", pid_of(&ending));
    wait_for("its end while the agent is away or just back", || async {
        (!std::path::Path::new(&process).exists()).then_some(())
    })
    .await;
    let ended =
        wait_for("its exit code", || async { main_status(&pods, "ends").await?.state?.terminated }).await;
    assert_eq!(ended.exit_code, 7, "{ended:?}");

    let lines = numbers(&wait_for("the log after the kill", log).await).len();
    let text =
        wait_for("the log to go on", || async { log().await.filter(|log| numbers(log).len() > lines + 50) })
            .await;
    let after = wait_for("the counter's status", || is_ready("counter")).await;
    assert_eq!((after.restart_count, after.state), (0, before.state));
    assert_eq!(pid_of(&text), old, "the same process");
    let counted = numbers(&text);
    let expected: Vec<u64> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, expected, "no line is missing or doubled");

    let process = format!("/proc/{old}");
    assert!(std::path::Path::new(&process).exists());
    drop(cluster);
    assert!(!std::path::Path::new(&process).exists(), "the cluster's end is its pods' end");
}

#[tokio::test]
async fn a_host_that_leaves_for_another_program_file_restarts_no_pod_and_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let (program, next) = (folder.path().join("holdfast"), folder.path().join("next"));
    std::fs::copy(HOLDFAST, &program).unwrap();
    let cluster = Cluster::start_program(&program, folder.path(), 3, "auto", &[]);
    cluster.wait_until_ready(3).await;
    let pods = Api::<Pod>::default_namespaced(cluster.client().await.unwrap());
    pods.create(&PostParams::default(), &pod("counter", COUNTS, "Always")).await.unwrap();
    let ready = || async { main_status(&pods, "counter").await.filter(|main| main.ready) };
    let before = wait_for("the counter to be ready", ready).await;
    let log = || async { pods.logs("counter", &LogParams::default()).await.ok() };
    let text = wait_for("its log", || async { log().await.filter(|log| numbers(log).len() > 10) }).await;
    let process = text.lines().next().unwrap().to_owned();
    let process = Path::new("/proc").join(process);

    std::fs::copy(HOLDFAST, &next).unwrap();
    std::fs::rename(&next, &program).unwrap();
    let new = std::fs::metadata(&program).unwrap().ino();
    let runs = |pid: i32| std::fs::metadata(format!("/proc/{pid}/exe")).map(|exe| exe.ino()).ok();
    let old = cluster.pid_of_host("n1").unwrap();
    assert_ne!(runs(old), Some(new));
    cluster.signal_host("n1", libc::SIGUSR2);
    wait_for("the host's next process, of the new file", || async {
        cluster.pid_of_host("n1").filter(|pid| *pid != old && runs(*pid) == Some(new))
    })
    .await;
    assert!(process.exists());
    let said = "host n1 ended (exit status: 0)";
    wait_for("the end in order", || async { cluster.log().contains(said).then_some(()) }).await;

    let lines = numbers(&wait_for("the log afterwards", log).await).len();
    let more = || async { log().await.filter(|log| numbers(log).len() > lines + 50) };
    let counted = numbers(&wait_for("the log to go on", more).await);
    let after = wait_for("the counter's status", ready).await;
    assert_eq!((after.restart_count, after.state), (0, before.state));
    let expected: Vec<u64> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, expected, "no line is missing or doubled");
    assert!(process.exists(), "the same process");
    drop(cluster);
    assert!(!process.exists(), "the cluster's end is its pods' end");
}
