//! Hosts whose lease is over are fenced, and what must not run twice runs elsewhere: then, and not before.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::stateful_sets::stateful;
use controllers::{Key, LeaseEnd};
use k8s_openapi::api::core::v1::{Node, Pod};
use objects::{Delete, FENCED_EPOCH, FENCING, Fencing, LEASE_EPOCH, STOPS_WITH_LEASE, SWITCH_ON_EPOCH};
use serde_json::{Value, json};

impl Cluster {
    /// A host promises to stop what must not run twice with its lease, and registers the epoch that it is in.
    pub async fn register(&self, host: &str, epoch: u64) {
        let said = json!({"metadata": {"annotations": {FENCING: "lease", LEASE_EPOCH: epoch.to_string()}}});
        self.patch("v1", "Node", "", host, "", said).await.unwrap();
    }

    /// A pod's host says that it runs, and that it stops with the lease of that epoch.
    pub async fn run_by_lease(&self, name: &str, epoch: u64) {
        let mut stops = self.condition(STOPS_WITH_LEASE, "True");
        stops["message"] = epoch.to_string().into();
        let conditions = [self.condition("Ready", "True"), stops].to_vec();
        let status = json!({"status": {"phase": "Running", "conditions": conditions}});
        self.patch("v1", "Pod", "default", name, "status", status).await.unwrap();
    }

    /// It is known by now that a host's lease is over.
    pub fn end_lease(&mut self, host: &str, epoch: u64, is_back: bool) {
        let since = self.now.instant;
        self.ended.insert(host.to_owned(), LeaseEnd { epoch, is_back, since });
        self.look_at(host);
    }

    pub fn node(&self, host: &str) -> Arc<Node> {
        let mut nodes = self.list::<Node>().into_iter();
        nodes.find(|node| node.metadata.name.as_deref() == Some(host)).unwrap()
    }

    pub fn fencing(&self, host: &str) -> Fencing {
        Fencing::of(self.node(host).metadata.annotations.as_ref())
    }

    /// Where a pod is placed.
    pub fn node_of(&self, name: &str) -> Option<String> {
        self.get::<Pod>("default", name)?.spec.unwrap().node_name
    }
}

/// Three hosts that promise to stop with their leases, the first two with a pod of a StatefulSet each that does so.
async fn promising() -> (Cluster, String) {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    for host in ["n1", "n2", "n3"] {
        cluster.register(host, 7).await;
    }
    stateful(&cluster, json!({"replicas": 2})).await;
    cluster.settle().await;
    for pod in ["db-0", "db-1"] {
        cluster.run_by_lease(pod, 7).await;
    }
    let host = cluster.node_of("db-0").unwrap();
    assert_ne!(cluster.node_of("db-1").as_ref(), Some(&host));
    (cluster, host)
}

async fn fall_silent(cluster: &mut Cluster, host: &str) {
    cluster.silence(host);
    cluster.pass(Duration::from_millis(1100));
    cluster.look_at(host);
    cluster.settle().await;
}

fn taints(cluster: &Cluster, host: &str) -> Vec<(String, String)> {
    let taints = cluster.get::<Node>("", host).unwrap().spec.unwrap().taints;
    taints.into_iter().flatten().map(|taint| (taint.key, taint.effect)).collect()
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_runs_elsewhere_once_its_host_is_fenced_and_not_before() {
    let (mut cluster, host) = promising().await;
    fall_silent(&mut cluster, &host).await;
    assert_eq!(cluster.node_of("db-0").as_ref(), Some(&host), "silence is a guess");
    cluster.end_lease(&host, 6, false);
    cluster.settle().await;
    assert_eq!(cluster.fencing(&host).fenced, None, "that was an earlier epoch");
    assert_eq!(cluster.node_of("db-0").as_ref(), Some(&host));

    cluster.end_lease(&host, 7, false);
    cluster.settle().await;
    assert_eq!(cluster.fencing(&host).fenced, Some(7));
    let now = cluster.node_of("db-0").unwrap();
    assert_ne!(now, host);
    assert!(cluster.told(&host, "NodeFenced")[0].contains("epoch 7"));
    assert!(taints(&cluster, &host).contains(&("holdfast.dev/fenced".into(), "NoSchedule".into())));

    // Back, in the next epoch: by hand, after its agent failed to switch it on.
    let left_off: Value = json!({"metadata": {"annotations": {SWITCH_ON_EPOCH: "7"}}});
    cluster.patch("v1", "Node", "", &host, "", left_off).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.fencing(&host).switch_on, Some(7));
    cluster.hear(&host).await;
    cluster.register(&host, 8).await;
    cluster.settle().await;
    let is_back = Fencing { fenced: None, epoch: Some(8), switch_on: None, ..cluster.fencing(&host) };
    assert_eq!(cluster.fencing(&host), is_back);
    assert_eq!(taints(&cluster, &host), []);
    assert_eq!(cluster.told(&host, "NodeUnfenced").len(), 1);
    assert_eq!(cluster.node_of("db-0"), Some(now), "nobody moves it back");
}

#[tokio::test]
async fn a_pod_that_stops_with_the_lease_gets_no_spare_before_its_host_is_fenced_whatever_made_it() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.register("n1", 7).await;
    let unschedulable = json!({"spec": {"unschedulable": true}});
    cluster.patch("v1", "Node", "", "n2", "", unschedulable).await.unwrap();
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    cluster.patch("v1", "Node", "", "n2", "", json!({"spec": {"unschedulable": null}})).await.unwrap();
    let names = |cluster: &Cluster| {
        let pods = cluster.list::<Pod>().into_iter();
        let stays = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        stays.filter_map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>()
    };
    let first = names(&cluster);
    let [single, other] = &*first else { panic!("two pods") };
    cluster.run_by_lease(single, 7).await;
    fall_silent(&mut cluster, "n1").await;
    assert!(names(&cluster).contains(single) && !names(&cluster).contains(other));
    cluster.end_lease("n1", 7, false);
    cluster.settle().await;
    assert!(!names(&cluster).contains(single));
    assert_eq!(names(&cluster).len(), 2);
}

#[tokio::test]
async fn a_host_that_promises_nothing_is_not_fenced_and_a_pod_of_which_it_says_nothing_stays() {
    let (mut cluster, host) = promising().await;
    let nothing = json!({"metadata": {"annotations": {FENCING: null}}});
    cluster.patch("v1", "Node", "", &host, "", nothing).await.unwrap();
    fall_silent(&mut cluster, &host).await;
    cluster.end_lease(&host, 7, false);
    cluster.settle().await;
    assert_eq!((cluster.fencing(&host).fenced, cluster.node_of("db-0")), (None, Some(host)));

    let (mut cluster, host) = promising().await;
    let other = json!({"status": {"conditions": [cluster.condition("Ready", "True")]}});
    cluster.patch("v1", "Pod", "default", "db-0", "status", other).await.unwrap();
    fall_silent(&mut cluster, &host).await;
    cluster.end_lease(&host, 7, false);
    cluster.settle().await;
    assert_eq!((cluster.fencing(&host).fenced, cluster.node_of("db-0")), (Some(7), Some(host)));
}

#[tokio::test]
async fn a_host_that_is_heard_in_a_later_epoch_has_three_seconds_to_register_it() {
    for registers in [true, false] {
        let (mut cluster, host) = promising().await;
        cluster.end_lease(&host, 7, true);
        cluster.settle().await;
        cluster.pass(Duration::from_millis(2900));
        cluster.settle().await;
        assert_eq!(cluster.fencing(&host).fenced, None);
        if registers {
            cluster.register(&host, 8).await;
        }
        cluster.pass(Duration::from_millis(200));
        cluster.settle().await;
        assert_eq!(cluster.fencing(&host).fenced, (!registers).then_some(7));
        assert_eq!(cluster.node_of("db-0") == Some(host), registers, "it hears nobody, and has stopped");
    }
}

#[tokio::test]
async fn of_a_host_that_registers_and_a_leader_that_marks_the_later_one_sees_the_other() {
    let (mut cluster, host) = promising().await;
    cluster.end_lease(&host, 7, false);
    let key = Key::of("fencing", "", &host).unwrap();
    let plan = cluster.decide(&key);
    assert_eq!(plan.actions.len(), 1);
    cluster.register(&host, 8).await;
    for action in plan.actions {
        cluster.carry_out(&key, action).await;
    }
    assert_eq!(cluster.fencing(&host).fenced, None, "what was decided was about the former epoch");
    cluster.settle().await;
    assert_eq!(cluster.fencing(&host).fenced, None);
}

#[tokio::test]
async fn what_was_decided_of_a_pod_is_not_done_once_it_runs_by_the_next_epoch() {
    let (mut cluster, host) = promising().await;
    fall_silent(&mut cluster, &host).await;
    let key = Key::of("fencing", "", &host).unwrap();
    let uid = cluster.get::<Pod>("default", "db-0").unwrap().metadata.uid;
    cluster.end_lease(&host, 7, false);
    while cluster.fencing(&host).fenced.is_none() {
        cluster.reconcile(key.clone()).await;
    }
    let plan = cluster.decide(&key);
    assert_eq!(plan.actions.len(), 1, "it has failed");
    cluster.register(&host, 8).await;
    cluster.run_by_lease("db-0", 8).await;
    for action in plan.actions {
        cluster.carry_out(&key, action).await;
    }
    cluster.settle().await;
    let pod = cluster.get::<Pod>("default", "db-0").unwrap();
    assert_eq!((pod.metadata.uid, pod.status.unwrap().phase.as_deref()), (uid, Some("Running")));
}

#[tokio::test]
async fn what_is_to_end_on_a_fenced_host_is_gone_and_what_nobody_would_make_again_waits() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.register("n1", 7).await;
    for name in ["ending", "staying", "elsewhere"] {
        let on = if name == "elsewhere" { "n2" } else { "n1" };
        cluster
            .create(json!({
                "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": on, "containers": [{"name": "c", "image": "c"}],
                    "tolerations": [{"operator": "Exists"}]},
            }))
            .await;
        cluster.run_by_lease(name, 7).await;
    }
    fall_silent(&mut cluster, "n1").await;
    cluster.delete("v1", "Pod", "default", "ending", Delete::default()).await;
    cluster.settle().await;
    let there = |cluster: &Cluster| {
        let names = cluster.list::<Pod>().into_iter().map(|pod| pod.metadata.name.clone().unwrap());
        names.collect::<Vec<_>>()
    };
    assert_eq!(there(&cluster), ["elsewhere", "ending", "staying"]);
    cluster.end_lease("n1", 7, false);
    cluster.settle().await;
    assert_eq!(there(&cluster), ["elsewhere", "staying"], "none is stuck in Terminating");
    // Also one that is deleted later.
    cluster.delete("v1", "Pod", "default", "staying", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(there(&cluster), ["elsewhere"]);
}

#[tokio::test]
async fn a_new_leader_goes_on_where_the_old_one_was() {
    let (mut cluster, host) = promising().await;
    fall_silent(&mut cluster, &host).await;
    let mark: Value = json!({"metadata": {"annotations": {FENCED_EPOCH: "7"}}});
    cluster.patch("v1", "Node", "", &host, "", mark).await.unwrap();
    cluster.take_over();
    cluster.settle().await;
    assert_ne!(cluster.node_of("db-0"), Some(host), "by the mark alone");
}
