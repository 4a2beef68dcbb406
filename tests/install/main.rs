//! Machines that become hosts by the real commands: each in a network namespace and with folders of its own, knowing the
//! others by nothing but what the commands print. Entering a namespace takes a process with one thread, so this is a program of its own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests wait for real clusters, and give up in the end")]

mod machine;
mod upgrade;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use local::{Bridge, Island, Permission};
use serde_json::json;

use crate::machine::{Machine, VIP};

/// How long a condition may take before the test gives up on it: generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CASE: &str = "machines_become_a_cluster_that_bears_the_loss_of_its_first_host";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    if filter.is_some_and(|filter| !CASE.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    match Island::permission() {
        Ok(Permission::Granted) => {}
        refused => {
            testing::skip("netns", format_args!("{refused:?}"));
            return ExitCode::SUCCESS;
        }
    }
    // Pods outlive their hosts: whatever is left in the end, the guard ends.
    local::stand_guard().unwrap();
    let island = Island::enter().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(three_machines(island));
    println!("test {CASE} ... ok");
    ExitCode::SUCCESS
}

async fn three_machines(island: Island) {
    let folder = tempfile::tempdir().unwrap();
    let bridge = Bridge::build(&island).await.unwrap();
    let mut machines = Vec::new();
    for number in 1..=3 {
        let namespace = bridge.plug(number).await.unwrap();
        machines.push(Machine::new(folder.path(), number, namespace));
    }
    let [n1, n2, n3] = &mut machines[..] else { unreachable!() };

    // The first one.
    let refused = n1.fails(&["init", "--name", "n1", "--vip", "10.74.0.100", "--ignore", "all"]);
    assert!(refused.contains("10.74.0.100 lies outside hostCidr"), "{refused}");
    // The disk of a machine that runs tests may be full of other things.
    let settings = folder.path().join("settings.yaml");
    std::fs::write(&settings, "eviction: {hard: {memory.available: 100Mi, nodefs.available: 0.1%}}\n")
        .unwrap();
    let settings = settings.to_str().unwrap();
    let init = ["init", "--name", "n1", "--vip", VIP, "--ignore", "all", "--settings", settings];
    let said = n1.does(&init);
    assert_eq!(n1.does(&init).lines().last(), said.lines().last(), "it may be repeated");
    let other = n1.fails(&["init", "--name", "n9", "--vip", VIP]);
    assert!(other.contains("is the host n1 at 10.73.0.1"), "{other}");
    let (token, join) = join_of(&said);
    let ["join", cluster, "--ca-hash", hash] = join[..] else { panic!("{join:?}") };
    assert_eq!(cluster, format!("{VIP}:6443"));

    let nobody = n2.fails_to_join(token, &named(&join, "n2"));
    assert!(nobody.contains("is the first host started"), "{nobody}");
    n1.start();
    let client = n1.client().await;
    wait_for("the first host alone to be ready", || ready_nodes(&client, 1)).await;
    wait_for("the first token", || async {
        let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
        secrets.get(&format!("bootstrap-token-{}", &token[..6])).await.ok()
    })
    .await;

    // Nobody joins without all that it takes.
    let wrong_secret = format!("{}.0123456789abcdef", &token[..6]);
    let other_hash = format!("sha256:{}", "0".repeat(64));
    for (cluster, token, hash, name, told) in [
        (cluster, &*wrong_secret, hash, "n2", "the cluster knows no such token"),
        (cluster, "zzzzzz.0123456789abcdef", hash, "n2", "the cluster knows no such token"),
        (cluster, token, &*other_hash, "n2", "isn't a host of the cluster that the hash names"),
        (cluster, token, hash, "n1", "a host n1 is there and heard"),
        ("10.73.0.2:6443", token, hash, "n2", "nobody answers"),
    ] {
        let refused = n2.fails_to_join(token, &named(&["join", cluster, "--ca-hash", hash], name));
        assert!(refused.contains(told), "{told}: {refused}");
    }
    assert!(!n2.is_host(), "nothing came of it");

    // The others, the last one by another host than the first and a token of its own.
    n2.joins(token, &named(&join, "n2"));
    let again = n2.joins("", &named(&join, "n2"));
    assert!(again.contains("has joined already"), "{again}");
    n2.start();
    wait_for("two hosts", || ready_nodes(&client, 2)).await;
    let made = n1.does(&["token", "create", "--description", "for n3", "--kubeconfig", &n1.kubeconfig()]);
    let (second, _) = join_of(&made);
    let listed = n1.does(&["token", "list", "--kubeconfig", &n1.kubeconfig()]);
    assert!(listed.contains("for n3") && listed.contains("made by holdfast init"), "{listed}");
    assert!(!listed.contains(&second[7..]), "without the secrets: {listed}");
    n1.does(&["token", "revoke", &token[..6], "--kubeconfig", &n1.kubeconfig()]);
    let revoked = n3.fails_to_join(token, &named(&join, "n3"));
    assert!(revoked.contains("the cluster knows no such token"), "{revoked}");
    n3.joins(second, &named(&["join", "10.73.0.2:6443", "--ca-hash", hash], "n3"));
    assert!(n3.config().contains("nodefs.available: 0.1%"), "{}", n3.config());
    n3.start();
    wait_for("three hosts", || ready_nodes(&client, 3)).await;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let ranges: BTreeSet<_> = nodes.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.clone()).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");

    // Pods on each of them.
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    deployments.create(&PostParams::default(), &web()).await.unwrap();
    wait_for("a pod on each host", || async {
        let hosts = hosts_of_ready_pods(&client).await?;
        (hosts.len() == 3).then_some(())
    })
    .await;
    wait_for("three members that vote", || n1.voters(3)).await;
    upgrade::one_after_the_other(folder.path(), &mut machines, &client).await;
    let [n1, n2, n3] = &mut machines[..] else { unreachable!() };

    // The first one loses its power: the cluster doesn't depend on where it was made.
    bridge.cut(1).await.unwrap();
    n1.cut();
    let refused = n1.starts_without_data();
    assert!(refused.contains("etc/begun says that this host has taken part"), "{refused}");
    let after = n2.client().await;
    let maps = Api::<ConfigMap>::namespaced(after.clone(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "after"}})).unwrap();
    wait_for("a write without the first host", || async {
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => Some(()),
            // It was written, and the answer got lost.
            Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
            Err(_) => None,
        }
    })
    .await;
    wait_for("all pods on two hosts", || async {
        let available = Api::<Deployment>::namespaced(after.clone(), "default").get("web").await.ok()?;
        let hosts = hosts_of_ready_pods(&after).await?;
        (available.status?.available_replicas? >= 3 && hosts == ["n2", "n3"].map(str::to_owned).into())
            .then_some(())
    })
    .await;
    let status = wait_for("a status that counts the members", || async {
        let status = n3.fails(&["status", "--kubeconfig", &n3.kubeconfig()]);
        status.contains("2 of 3 members are ready: one more loss and the cluster stops").then_some(status)
    })
    .await;
    assert!(status.contains("n1 is silent"), "{status}");
    // Machines can join all the same: a new one under the old one's name, with another disk.
    bridge.unplug(1).await.unwrap();
    let mut anew = Machine::new(&folder.path().join("anew"), 1, bridge.plug(1).await.unwrap());
    let made = n2.does(&["token", "create", "--kubeconfig", &n2.kubeconfig()]);
    let (token, join) = join_of(&made);
    let refused = anew.fails_to_join(token, &named(&join, "n1"));
    assert!(refused.contains("token create --replace n1"), "{refused}");
    let made = n2.does(&["token", "create", "--replace", "n1", "--kubeconfig", &n2.kubeconfig()]);
    let (token, join) = join_of(&made);
    let join = [&join[..], &["--ignore", "all"]].concat();
    anew.joins(token, &join);
    let late = Machine::new(&folder.path().join("late"), 4, bridge.plug(4).await.unwrap());
    let refused = late.fails_to_join(token, &join);
    assert!(refused.contains("which is good for one alone"), "{refused}");
    let taken_back = Api::<ConfigMap>::namespaced(after.clone(), "kube-system");
    let taken_back = taken_back.get("holdfast-certificates").await.unwrap().data.unwrap();
    assert!(taken_back.values().any(|entry| entry.contains(&n1.key_hash())), "{taken_back:?}");
    anew.start();
    wait_for("three hosts again", || ready_nodes(&after, 3)).await;
    wait_for("three members with the new one", || n2.voters(3)).await;
    // The machine that was replaced comes home, and is cleared: its name is the other's, which stays.
    late.takes_files_of(n1);
    late.does(&["reset", "--yes"]);
    assert!(!late.is_host());
    assert!(n2.voters(3).await.is_some(), "n1 is the machine that took its place");
    Api::<Node>::all(after.clone()).get("n1").await.unwrap();
    let _ = deployments.delete("web", &DeleteParams::default()).await;

    // All are off until after the end of their certificates.
    let mut all = [&mut anew, &mut *n2, &mut *n3];
    for machine in &mut all {
        machine.cut();
        machine.end_certificates();
    }
    for machine in &mut all {
        machine.start();
    }
    wait_for("a write by hosts whose certificates were over", || async {
        let name = format!("certificates-{}", uuid::Uuid::new_v4());
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        maps.create(&PostParams::default(), &map).await.ok()
    })
    .await;
    wait_for("three members that vote again", || n2.voters(3)).await;
    for machine in [&anew, &*n2, &*n3] {
        assert!(machine.valid_until() > SystemTime::now() + 80 * DAY);
    }

    // It leaves on purpose: the cluster is smaller then, and goes on.
    if let Some(network) = anew.network() {
        assert!(network.contains("10.96.0.0/16") && network.contains("10.244."), "{network}");
    }
    let listed = anew.fails(&["reset"]);
    assert!(
        listed.contains("nothing was removed") && listed.contains("as a member of the store"),
        "{listed}"
    );
    assert!(anew.is_host());
    anew.does(&["reset", "--yes"]);
    anew.is_clean();
    assert_eq!(anew.does(&["reset", "--yes"]), "Nothing of a host is on this machine.\n");
    wait_for("two members", || n2.voters(2)).await;
    wait_for("two Nodes", || async {
        let nodes = Api::<Node>::all(after.clone()).list(&ListParams::default()).await.ok()?;
        (nodes.items.len() == 2).then_some(())
    })
    .await;
    wait_for("two hosts that are ready", || ready_nodes(&after, 2)).await;
    let backup = folder.path().join("state.backup");
    let backup = backup.to_str().unwrap();
    n2.does(&["backup", backup, "--kubeconfig", &n2.kubeconfig()]);

    // Without a majority nobody holds the address that the kubeconfig names, and the last host tells all the same how it is.
    n2.cut();
    wait_for("the last host to say that nobody leads", || async {
        let status = n3.fails(&["status", "--kubeconfig", &n3.kubeconfig()]);
        (status.contains("nobody leads: the cluster takes no writes") && status.contains("n2 is silent"))
            .then_some(())
    })
    .await;

    // It may not leave like this, unless somebody insists.
    let refused = n3.fails(&["reset", "--yes"]);
    assert!(refused.contains("without this host the cluster stops") && n3.is_host(), "{refused}");
    n3.does(&["reset", "--yes", "--force"]);
    n3.is_clean();

    // What it held goes on elsewhere: under other names, on machines that know nothing of it.
    let restore = [&init[..2], &["m1"], &init[3..], &["--restore", backup]].concat();
    let said = n3.does(&restore);
    n3.start();
    let restored = n3.client().await;
    wait_for("the restored host", || ready_nodes(&restored, 1)).await;
    let maps = Api::<ConfigMap>::namespaced(restored.clone(), "default");
    let list = maps.list(&ListParams::default()).await.unwrap();
    assert!(
        list.iter().any(|map| map.metadata.name.as_deref() == Some("after")),
        "what was written is there"
    );
    let revision: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
    assert!(revision > 1_000_000_000, "no revision comes again: {revision}");
    let (token, join) = join_of(&said);
    wait_for("the token of the new cluster", || async {
        let secrets = Api::<Secret>::namespaced(restored.clone(), "kube-system");
        secrets.get(&format!("bootstrap-token-{}", &token[..6])).await.ok()
    })
    .await;
    // Who was a host of the old cluster is nobody's name here.
    anew.joins(token, &named(&join, "n2"));
    anew.start();
    wait_for("another host", || ready_nodes(&restored, 2)).await;
}

/// The token and the command in the line that is printed for other machines.
fn join_of(said: &str) -> (&str, Vec<&str>) {
    let parts = said.lines().find_map(|line| line.trim().strip_prefix("echo ")?.split_once(" | holdfast "));
    let (token, join) = parts.unwrap();
    (token, join.split_whitespace().collect())
}

fn named<'a>(join: &[&'a str], name: &'a str) -> Vec<&'a str> {
    join.iter().copied().chain(["--name", name, "--ignore", "all"]).collect()
}

fn web() -> Deployment {
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    let container = json!({"name": "web", "command": ["holdfast", "web"], "readinessProbe": probe,
        "env": [
            {"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"containerPort": 8080}]});
    let spec =
        json!({"runtimeClassName": "host", "terminationGracePeriodSeconds": 1, "containers": [container]});
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    });
    serde_json::from_value(deployment).unwrap()
}

async fn ready_nodes(client: &kube::Client, wanted: usize) -> Option<()> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
    let is_ready = |node: &&Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    (nodes.iter().filter(is_ready).count() == wanted).then_some(())
}

async fn hosts_of_ready_pods(client: &kube::Client) -> Option<BTreeSet<String>> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let pods = pods.list(&ListParams::default().labels("app=web")).await.ok()?;
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    Some(pods.iter().filter(is_ready).filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect())
}

/// Asks until the answer is there.
async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_secs(5), ask()).await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
