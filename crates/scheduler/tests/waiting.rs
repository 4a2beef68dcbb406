//! Pods that wait, as the state changes.
#![allow(clippy::unwrap_used)]

mod world;

use objects::Pool;
use scheduler::{Preemption, Silence, Waiting};
use serde_json::{Value, json};
use store::{Op, Store, Txn};
use world::World;

impl World {
    async fn new(nodes: &[&str]) -> Self {
        let mut world = World::empty();
        for node in nodes {
            world.node(node, "2").await;
        }
        world
    }

    async fn node(&mut self, name: &str, cpu: &str) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"allocatable": {"cpu": cpu, "pods": "10"}, "conditions": ready});
        self.put("", "nodes", "", json!({"metadata": {"name": name}, "status": status})).await;
    }

    async fn pod(&mut self, name: &str, extra: Value) {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"containers": [container]},
        });
        for (field, value) in extra.as_object().unwrap() {
            match field.as_str() {
                "uid" | "deletionTimestamp" | "creationTimestamp" => pod["metadata"][field] = value.clone(),
                "status" => pod["status"] = value.clone(),
                _ => pod["spec"][field] = value.clone(),
            }
        }
        self.put("", "pods", "d", pod).await;
    }

    async fn delete(&mut self, name: &str) {
        let range = store::KeyRange::key(objects::key("", "pods", "d", name));
        let txn = Txn { success: vec![Op::Delete(range)], ..Txn::default() };
        self.store.txn(txn).await.unwrap();
        self.waiting.advance(self.store.snapshot());
    }

    fn decide(&mut self) -> Vec<(String, Option<String>)> {
        let decided = self.decisions().into_iter();
        decided.map(|d| (d.pod.metadata.name.clone().unwrap(), d.place.ok())).collect()
    }
}

fn placed(name: &str, node: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(node.to_owned()))
}

fn unplaced(name: &str) -> (String, Option<String>) {
    (name.to_owned(), None)
}

#[tokio::test]
async fn what_is_decided_counts_until_the_bind_fails() {
    let mut world = World::new(&["n1"]).await;
    for name in ["a", "b", "c"] {
        world.pod(name, json!({})).await;
    }
    assert_eq!(world.decide(), [placed("a", "n1"), placed("b", "n1"), unplaced("c")], "two processors");
    assert_eq!(world.decide(), [], "nothing happened");
    world.pod("a", json!({"nodeName": "n1"})).await;
    assert_eq!(world.decide(), [], "it was bound as decided");
    world.waiting.forget(&"a".into());
    assert_eq!(world.decide(), [], "a bind that was carried out doesn't fail any more");
    world.waiting.forget(&"b".into());
    assert_eq!(world.decide(), [placed("b", "n1"), unplaced("c")], "what is older goes first");
}

#[tokio::test]
async fn a_pod_without_a_place_is_tried_again_when_something_helps() {
    let mut world = World::new(&["n1"]).await;
    world.pod("big", json!({"nodeName": "n1"})).await;
    world.pod("other", json!({"nodeName": "n1"})).await;
    world.pod("p", json!({})).await;
    assert_eq!(world.decide(), [unplaced("p")]);
    world.pod("p", json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}})).await;
    world.pod("big", json!({"nodeName": "n1", "status": {"phase": "Running"}})).await;
    assert_eq!(world.decide(), [], "reports help nobody");
    world.pod("big", json!({"nodeName": "n1", "status": {"phase": "Succeeded"}})).await;
    assert_eq!(world.decide(), [placed("p", "n1")], "a pod that has ended makes room");
    world.pod("q", json!({})).await;
    assert_eq!(world.decide(), [unplaced("q")]);
    world.node("n2", "1").await;
    assert_eq!(world.decide(), [placed("q", "n2")]);
    world.pod("r", json!({})).await;
    assert_eq!(world.decide(), [unplaced("r")]);
    world.delete("other").await;
    assert_eq!(world.decide(), [placed("r", "n1")]);
}

#[tokio::test]
async fn gates_deletion_and_other_schedulers_keep_a_pod_out() {
    let mut world = World::new(&["n1"]).await;
    world.pod("gated", json!({"schedulingGates": [{"name": "g"}]})).await;
    world.pod("leaving", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})).await;
    world.pod("foreign", json!({"schedulerName": "mine"})).await;
    world.pod("ended", json!({"status": {"phase": "Failed"}})).await;
    assert_eq!(world.decide(), []);
    assert!(world.waiting.is_empty());
    world.pod("gated", json!({})).await;
    assert_eq!(world.decide(), [placed("gated", "n1")]);
}

#[tokio::test]
async fn a_pod_of_the_same_name_is_another_one() {
    let mut world = World::new(&["n1"]).await;
    world.pod("a", json!({})).await;
    world.pod("b", json!({})).await;
    assert_eq!(world.decide(), [placed("a", "n1"), placed("b", "n1")]);
    world.delete("a").await;
    world.pod("a", json!({"uid": "a2"})).await;
    assert_eq!(world.decide(), [placed("a", "n1")], "the place of the first one is free");
    assert_eq!(world.waiting.len(), 2);
}

#[tokio::test]
async fn pods_on_a_node_that_goes_count_when_it_comes_back() {
    let mut world = World::new(&["n1"]).await;
    world.pod("a", json!({"nodeName": "n1"})).await;
    let range = store::KeyRange::key(objects::key("", "nodes", "", "n1"));
    let txn = Txn { success: vec![Op::Delete(range)], ..Txn::default() };
    world.store.txn(txn).await.unwrap();
    world.waiting.advance(world.store.snapshot());
    world.pod("p", json!({})).await;
    assert_eq!(world.decide(), [unplaced("p")], "no node");
    world.node("n1", "1").await;
    assert_eq!(world.decide(), [unplaced("p")], "its one processor is taken");
    world.node("n1", "2").await;
    assert_eq!(world.decide(), [placed("p", "n1")]);
}

#[tokio::test]
async fn others_go_for_a_pod_once_and_nobody_takes_their_room() {
    let mut world = World::new(&["n1"]).await;
    world.pod("low", json!({"nodeName": "n1"})).await;
    world.pod("rest", json!({"nodeName": "n1", "priority": 9})).await;
    world.pod("p", json!({"priority": 5})).await;
    let decisions = world.decisions();
    assert!(decisions[0].preempts);
    let Preemption::Possible(victims) = &decisions[0].place.as_ref().unwrap_err().preemption else {
        panic!()
    };
    assert_eq!((victims.node.as_str(), victims.pods.len()), ("n1", 1));

    // What the driver says meanwhile.
    world.pod("p", json!({"priority": 5, "status": {"nominatedNodeName": "n1"}})).await;
    let target = json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    let leaving = json!({"nodeName": "n1", "status": {"conditions": target},
        "deletionTimestamp": "2026-01-01T00:00:00Z"});
    world.pod("low", leaving).await;
    assert_eq!(world.decide(), [], "it is held back");
    world.waiting.forget(&"p".into());
    assert_eq!(world.decide(), [unplaced("p")], "they are on their way out");
    world.delete("low").await;
    world.pod("new", json!({"priority": 4, "creationTimestamp": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(world.decide(), [placed("p", "n1"), unplaced("new")]);
    assert_eq!(world.waiting.len(), 2);

    // Another one that leads from here on reads it from the state.
    world.waiting.forget(&"p".into());
    world.waiting = Waiting::load(world.store.snapshot(), &Pool::default());
    world.pod("later", json!({"priority": 4})).await;
    world
        .pod(
            "p",
            json!({"priority": 5, "schedulingGates": [{"name": "g"}], "status": {"nominatedNodeName": "n1"}}),
        )
        .await;
    assert_eq!(world.decide(), [placed("later", "n1"), unplaced("new")], "a gated pod keeps no room");
}

#[tokio::test]
async fn a_nomination_is_read_from_the_state() {
    let mut world = World::new(&["n1"]).await;
    world.pod("low", json!({"nodeName": "n1"})).await;
    world.pod("p", json!({"priority": 5, "status": {"nominatedNodeName": "n1"}})).await;
    let mut waiting = Waiting::load(world.store.snapshot(), &Pool::default());
    std::mem::swap(&mut waiting, &mut world.waiting);
    world.delete("low").await;
    world.node("n1", "1").await;
    let big = json!({"metadata": {"name": "big", "namespace": "d", "uid": "big"},
        "spec": {"priority": 5, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
    world.put("", "pods", "d", big).await;
    assert_eq!(
        world.decide(),
        [unplaced("big"), placed("p", "n1")],
        "of those that are alike, the nominated one"
    );
}

#[tokio::test]
async fn a_member_that_begins_to_lead_moves_nobody() {
    let mut world = World::new(&["n1", "n2"]).await;
    assert!(world.waiting.rebalance(world.now).is_none());
    assert!(world.waiting.next_rebalance().is_some(), "both came");

    world.waiting = Waiting::load(world.store.snapshot(), &Pool::default());
    let silent = Silence::from([("n1".to_owned(), world.now)]);
    world.waiting.take_over(&silent, world.now);
    world.waiting.stand_by(world.now);
    // Meanwhile another one led, and heard the host.
    world.waiting.take_over(&Silence::new(), world.now);
    assert!(world.waiting.rebalance(world.now).is_none());
    assert_eq!(world.waiting.next_rebalance(), None, "nobody came back since");

    world.node("n3", "2").await;
    world.waiting.stand_by(world.now);
    world.waiting.take_over(&Silence::new(), world.now);
    assert!(world.waiting.next_rebalance().is_some(), "that one has not settled yet");
    world.pod("p", json!({})).await;
    assert_eq!(world.waiting.next_rebalance(), None, "pods without a place go first");
}
