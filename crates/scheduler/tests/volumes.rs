//! Where pods with claims go, as the state changes.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use objects::{BIND_COMPLETED, LOCAL_PATH, Pool, VOLUMES, Write};
use scheduler::{Silence, Waiting};
use serde_json::{Value, json};
use store::{Memory, Store, Txn};

struct World {
    store: Memory,
    waiting: Waiting,
    now: Instant,
}

/// A pod, its node or why it has none, and what is to be written before it is bound.
type Decided = (String, Result<String, String>, Vec<Write>);

impl World {
    async fn new(nodes: &[&str]) -> Self {
        let store = Memory::default();
        let waiting = Waiting::load(store.snapshot(), &Pool::default());
        // Tests stand for the driver, which reads the clock.
        #[allow(clippy::disallowed_methods)]
        let mut world = World { store, waiting, now: Instant::now() };
        for name in nodes {
            world.node(name, json!({})).await;
        }
        world
    }

    async fn put(&mut self, group: &str, plural: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let key = objects::key(group, plural, namespace, name);
        self.store.txn(Txn::put(key, object.to_string())).await.unwrap();
        self.waiting.advance(self.store.snapshot());
    }

    async fn node(&mut self, name: &str, annotations: Value) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let labels = json!({"kubernetes.io/hostname": name});
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        let status = json!({"allocatable": {"pods": "10"}, "conditions": ready});
        self.put("", "nodes", "", json!({"metadata": metadata, "status": status})).await;
    }

    async fn class(&mut self, name: &str, provisioner: &str) {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"});
        self.put("storage.k8s.io", "storageclasses", "", class).await;
    }

    /// A claim of a class, with a volume or without.
    async fn claim(&mut self, name: &str, class: &str, volume: Option<&str>) {
        let bound = volume.map(|_| json!({BIND_COMPLETED: "yes"}));
        let spec = json!({"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}});
        let metadata = json!({"name": name, "namespace": "d", "uid": name, "annotations": bound});
        self.put("", "persistentvolumeclaims", "d", json!({"metadata": metadata, "spec": spec})).await;
    }

    /// A pod that uses claims.
    async fn pod(&mut self, name: &str, claims: &[&str]) {
        let volumes: Vec<Value> = claims
            .iter()
            .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        let spec = json!({"containers": [{"name": "c"}], "volumes": volumes});
        let metadata = json!({"name": name, "namespace": "d", "uid": name});
        self.put("", "pods", "d", json!({"metadata": metadata, "spec": spec})).await;
    }

    /// The decisions, after everything that rests has rested.
    fn decide(&mut self) -> Vec<Decided> {
        self.now += std::time::Duration::from_secs(10);
        let decisions = self.waiting.decide(&Silence::new(), usize::MAX, self.now);
        let decided = decisions.into_iter().map(|decision| {
            let place = decision.place.map_err(|why| why.to_string());
            (decision.pod.metadata.name.clone().unwrap(), place, decision.before.unwrap_or_default())
        });
        decided.collect()
    }

    /// The place of the one pod that waits.
    fn place(&mut self) -> Result<String, String> {
        let mut decided = self.decide();
        assert_eq!(decided.len(), 1);
        decided.remove(0).1
    }
}

/// What is said where it isn't about preemption.
fn why(place: Result<String, String>) -> String {
    place.unwrap_err().split(" preemption: ").next().unwrap().to_owned()
}

#[tokio::test]
async fn folders_are_made_where_an_agent_makes_them() {
    let mut world = World::new(&["foreign"]).await;
    world.class("folders", LOCAL_PATH).await;
    world.class("others", "example.com/disks").await;
    world.claim("c", "folders", None).await;
    world.pod("p", &["c"]).await;
    let expected = "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(why(world.place()), expected, "the agent of another program makes none");
    world.node("own", json!({VOLUMES: "/volumes"})).await;
    assert_eq!(world.place(), Ok("own".into()));

    world.claim("d", "others", None).await;
    world.pod("q", &["d"]).await;
    assert_eq!(world.place(), Ok("foreign".into()), "somebody else's disks are that one's business");
}
