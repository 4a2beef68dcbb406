//! The drivers at work: controllers and scheduler on the leader, with clocks and tasks of their own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, wire};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use objects::{Pool, Reader};
use serde_json::json;
use store::{State, Store};
use tokio::sync::watch;

async fn until(states: &mut watch::Receiver<Arc<State>>, mut holds: impl FnMut(&State) -> bool) {
    let wait = async {
        while !holds(&states.borrow_and_update().clone()) {
            states.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the cluster gets there");
}

fn placed(state: &State, without: &str) -> usize {
    let pods = Reader::<Pod>::default().list(state);
    let here = pods.iter().filter(|pod| {
        let node = pod.spec.as_ref().unwrap().node_name.as_deref().unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none() && !node.is_empty() && node != without
    });
    here.count()
}

/// Runs the scheduler where every host is heard, until it is aborted.
fn schedule(cluster: &Cluster, metrics: Arc<scheduler::Metrics>) -> tokio::task::JoinHandle<()> {
    let (store, writer) = (cluster.store.clone(), cluster.writer.clone());
    let (_, silence) = watch::channel(BTreeMap::new());
    let pods = Pool::default();
    let profiles = scheduler::Profiles::default();
    tokio::spawn(scheduler::run(scheduler::Options { store, writer, silence, pods, profiles, metrics }))
}

// The test stands for the membership, which knows since when a host is silent.
#[allow(clippy::disallowed_methods)]
#[tokio::test]
async fn drivers_replace_the_pods_of_a_silent_host_when_it_is_time() {
    let cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    let (silent, silence) = watch::channel(BTreeMap::new());
    let (store, writer) = (cluster.store.clone(), cluster.writer.clone());
    let controllers = tokio::spawn(controllers::run(controllers::Options {
        part: controllers::Part::All,
        store: store.clone(),
        writer: writer.clone(),
        asker: std::sync::Arc::new(crate::cluster::Nobody),
        silence: silence.clone(),
        pods: Pool::default(),
        ended: watch::channel(Default::default()).1,
        grace: controllers::GRACE,
        fenced_after: controllers::FENCED_AFTER,
        api_port: 6443,
        addresses: objects::AddressPool::default(),
        root_certificate: "a certificate".into(),
        signer: None,
        load: watch::Sender::default(),
    }));
    let scheduler = tokio::spawn(scheduler::run(scheduler::Options {
        store: store.clone(),
        writer,
        silence,
        pods: Pool::default(),
        profiles: scheduler::Profiles::default(),
        metrics: Default::default(),
    }));
    let mut states = store.states();
    cluster.deploy("web", 3, json!({})).await;
    until(&mut states, |state| placed(state, "") == 3).await;

    let since = Instant::now();
    silent.send_replace(BTreeMap::from([("n2".to_owned(), since)]));
    until(&mut states, |state| placed(state, "n2") == 3).await;
    let took = since.elapsed();
    assert!(took >= controllers::GRACE, "not before its time: {took:?}");

    let told = |state: &State, reason: &str| {
        let events = Reader::<Event>::default().list(state);
        events.iter().any(|event| event.reason.as_deref() == Some(reason))
    };
    let reasons =
        ["SuccessfulCreate", "ScalingReplicaSet", "Scheduled", "NodeNotReady", "TaintManagerEviction"];
    until(&mut states, |state| reasons.iter().all(|reason| told(state, reason))).await;
    assert!(!controllers.is_finished() && !scheduler.is_finished());
    controllers.abort();
    scheduler.abort();
}

// The test stands for the membership, which knows since when a host is silent.
#[allow(clippy::disallowed_methods)]
#[tokio::test]
async fn an_agent_that_writes_is_alive_before_its_heartbeat_is_heard() {
    let cluster = Cluster::new(&["n1", "n2"]).await;
    let since = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
    let (_silent, silence) = watch::channel(BTreeMap::from([("n2".to_owned(), since)]));
    let controllers = tokio::spawn(controllers::run(controllers::Options {
        part: controllers::Part::All,
        store: cluster.store.clone(),
        writer: cluster.writer.clone(),
        asker: std::sync::Arc::new(crate::cluster::Nobody),
        silence,
        pods: Pool::default(),
        ended: watch::channel(Default::default()).1,
        grace: controllers::GRACE,
        fenced_after: controllers::FENCED_AFTER,
        api_port: 6443,
        addresses: objects::AddressPool::default(),
        root_certificate: "a certificate".into(),
        signer: None,
        load: watch::Sender::default(),
    }));
    let mut states = cluster.store.states();
    let tainted = |state: &State| {
        let node: Node = Reader::get(state, "", "n2").unwrap();
        node.spec.unwrap().taints.is_some_and(|taints| !taints.is_empty())
    };
    until(&mut states, tainted).await;
    let status = json!({"status": {"conditions": [cluster.condition("Ready", "True")]}});
    cluster.patch("v1", "Node", "", "n2", "status", status).await.unwrap();
    until(&mut states, |state| !tainted(state)).await;
    // A host of which nothing more is heard is silent all the same.
    until(&mut states, tainted).await;
    controllers.abort();
}

#[tokio::test]
async fn a_pod_without_a_place_says_why_and_gets_one_when_there_is_one() {
    let cluster = Cluster::new(&["n1"]).await;
    let (store, metrics) = (cluster.store.clone(), Arc::new(scheduler::Metrics::default()));
    let scheduler = schedule(&cluster, metrics.clone());
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "big", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "c", "resources": {"requests": {"cpu": "5"}}}]},
        }))
        .await;
    let mut states = store.states();
    let condition = |state: &State| {
        let pod: Pod = Reader::get(state, "default", "big")?;
        let conditions = pod.status?.conditions?;
        conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")
    };
    until(&mut states, |state| {
        condition(state).is_some_and(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref()
                    == Some(concat!(
                        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: ",
                        "1 Preemption is not helpful for scheduling.",
                    ))
        })
    })
    .await;
    let mut shown = String::new();
    metrics.write(&mut shown);
    let result = |result: &str| format!(r#"{{profile="default-scheduler",result="{result}"}} "#);
    let attempts = |of: &str| {
        let name = format!("scheduler_schedule_attempts_total{}", result(of));
        shown.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u32>().ok()).unwrap()
    };
    assert!(attempts("unschedulable") >= 1 && attempts("scheduled") == 0, "{shown}");
    let waiting = |queue: &str| shown.contains(&format!(r#"scheduler_pending_pods{{queue="{queue}"}} 1"#));
    assert!(waiting("backoff") || waiting("unschedulable"), "{shown}");
    let status = json!({"status": {
        "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": wire(cluster.now.wall)}],
    }});
    cluster.patch("v1", "Node", "", "n1", "status", status).await.unwrap();
    until(&mut states, |state| placed(state, "") == 1).await;
    scheduler.abort();
}

#[tokio::test]
async fn a_pod_of_higher_priority_takes_the_place_of_another() {
    let cluster = Cluster::new(&["n1"]).await;
    let store = cluster.store.clone();
    let scheduler = schedule(&cluster, Default::default());
    for (class, value) in [("low", 1), ("high", 1000)] {
        let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
            "metadata": {"name": class}, "value": value});
        cluster.create(class).await;
    }
    let pod = |name: &str, class: &str| {
        let container = json!({"name": "c", "image": "c", "resources": {"requests": {"cpu": "3"}}});
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"priorityClassName": class, "containers": [container]}})
    };
    let mut states = store.states();
    cluster.create(pod("low", "low")).await;
    until(&mut states, |state| placed(state, "") == 1).await;
    cluster.create(pod("high", "high")).await;
    cluster.create(pod("other", "low")).await;
    let get = |state: &State, name: &str| -> Pod { Reader::get(state, "default", name).unwrap() };
    until(&mut states, |state| get(state, "low").metadata.deletion_timestamp.is_some()).await;
    let state = store.snapshot();
    let conditions = get(&state, "low").status.unwrap().conditions.unwrap();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("PreemptionByScheduler"));
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(target.message.as_deref(), Some(message));
    let high = get(&state, "high");
    assert_eq!(high.status.unwrap().nominated_node_name.as_deref(), Some("n1"));
    let told = format!("Preempted by pod {} on node n1", high.metadata.uid.unwrap());
    until(&mut states, |state| {
        let events = Reader::<Event>::default().list(state);
        events.iter().any(|event| {
            event.reason.as_deref() == Some("Preempted")
                && event.involved_object.name.as_deref() == Some("low")
                && event.message.as_deref() == Some(&told)
        })
    })
    .await;
    // Its host has ended it.
    let now = objects::Delete { grace_seconds: Some(0), ..objects::Delete::default() };
    cluster.delete("v1", "Pod", "default", "low", now).await;
    until(&mut states, |state| placed(state, "") == 1).await;
    let node = |name: &str| get(&store.snapshot(), name).spec.unwrap().node_name;
    assert_eq!((node("high").as_deref(), node("other")), (Some("n1"), None), "nobody slipped in");
    scheduler.abort();
}

#[tokio::test]
async fn a_part_of_the_process_evicts_within_budgets() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "c"}]}});
    let uid = cluster.create(pod).await.uid().to_owned();
    cluster.place().await;
    cluster.start("default", "p", true).await;
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    cluster.create(budget).await;
    for (allowed, whose, code) in
        [(0, uid.as_str(), Some(429)), (1, "another", Some(409)), (1, uid.as_str(), None)]
    {
        let status = json!({"status": {"disruptionsAllowed": allowed, "observedGeneration": 1,
            "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
        cluster.patch("policy/v1", "PodDisruptionBudget", "default", "b", "status", status).await.unwrap();
        let evict = objects::Write::Evict { pod: objects::ObjectRef::new("default", "p"), uid: whose.into() };
        let answer = cluster.writer.write("system:kube-scheduler", evict).await;
        assert_eq!(answer.as_ref().err().map(|status| status.code), code, "{answer:?}");
    }
    let gone = cluster.get::<Pod>("default", "p").is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    assert!(gone);
}

#[tokio::test]
async fn a_gated_pod_is_not_placed_nor_called_unschedulable_until_its_last_gate_is_gone() {
    let cluster = Cluster::new(&["n1"]).await;
    let store = cluster.store.clone();
    let scheduler = schedule(&cluster, Default::default());
    let pod = |name: &str, gates: serde_json::Value, selector: serde_json::Value| {
        json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"schedulingGates": gates, "nodeSelector": selector, "containers": [{"name": "c", "image": "c"}]},
        })
    };
    let nowhere = || json!({"no": "where"});
    let gates = json!([{"name": "ex.io/a"}, {"name": "ex.io/b"}]);
    cluster.create(pod("gated", gates.clone(), json!(null))).await;
    cluster.create(pod("misled", gates, nowhere())).await;
    cluster.create(pod("hopeless", json!(null), nowhere())).await;
    let mut states = store.states();
    let reason = |state: &State, name: &str| {
        let pod: Pod = Reader::get(state, "default", name).unwrap();
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled");
        condition.and_then(|condition| condition.reason)
    };
    let unschedulable = Some("Unschedulable".to_owned());
    until(&mut states, |state| reason(state, "hopeless") == unschedulable).await;
    let state = store.snapshot();
    assert_eq!(reason(&state, "misled").as_deref(), Some("SchedulingGated"));
    assert_eq!(placed(&state, ""), 0);

    let one = json!({"spec": {"schedulingGates": [{"name": "ex.io/b"}]}});
    let none = json!({"spec": {"schedulingGates": []}});
    for name in ["gated", "misled"] {
        cluster.patch("v1", "Pod", "default", name, "", one.clone()).await.unwrap();
    }
    cluster.patch("v1", "Pod", "default", "misled", "", none.clone()).await.unwrap();
    until(&mut states, |state| reason(state, "misled") == unschedulable).await;
    assert_eq!(placed(&store.snapshot(), ""), 0, "one gate is left");
    cluster.patch("v1", "Pod", "default", "gated", "", none).await.unwrap();
    until(&mut states, |state| placed(state, "") == 1).await;
    let conditions = |name: &str| {
        let pod: Pod = Reader::get(&store.snapshot(), "default", name).unwrap();
        let found = pod.status.unwrap().conditions.unwrap().into_iter().filter(|c| c.type_ == "PodScheduled");
        found.map(|c| (c.status, c.reason)).collect::<Vec<_>>()
    };
    assert_eq!(
        conditions("misled"),
        [("False".to_owned(), unschedulable)],
        "the new reason replaces the old"
    );
    assert_eq!(conditions("gated"), [("True".to_owned(), None)]);
    scheduler.abort();
}
