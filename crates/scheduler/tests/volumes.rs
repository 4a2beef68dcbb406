//! Where pods with claims go, as the state changes.
#![allow(clippy::unwrap_used)]

mod world;

use objects::{BIND_COMPLETED, LOCAL_PATH, SELECTED_NODE, VOLUMES, Write};
use serde_json::{Value, json};
use world::World;

/// A pod, its node or why it has none, and what is to be written before it is bound.
type Decided = (String, Result<String, String>, Vec<Write>);

impl World {
    async fn new(nodes: &[&str]) -> Self {
        let mut world = World::empty();
        for name in nodes {
            world.node(name, json!({})).await;
        }
        world
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

    /// A volume of the class `disks` that is free, with more in its spec.
    async fn volume(&mut self, name: &str, size: &str, more: Value) {
        let mut spec = json!({"storageClassName": "disks", "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let volume = json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Available"}});
        self.put("", "persistentvolumes", "", volume).await;
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

    fn decide(&mut self) -> Vec<Decided> {
        let decided = self.decisions().into_iter().map(|decision| {
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

/// The volume that a write gives to a claim, or the node for which it has one made.
fn asked(writes: &[Write]) -> Vec<(String, String)> {
    let of = |write: &Write| {
        let Write::Merge { subject, patch, .. } = write else { panic!("{write:?}") };
        let what = match subject.kind.as_str() {
            "PersistentVolume" => &patch["spec"]["claimRef"]["name"],
            _ => &patch["metadata"]["annotations"][SELECTED_NODE],
        };
        (subject.name.clone(), what.as_str().unwrap().to_owned())
    };
    writes.iter().map(of).collect()
}

fn pair(one: &str, other: &str) -> Vec<(String, String)> {
    vec![(one.to_owned(), other.to_owned())]
}

#[tokio::test]
async fn a_volume_that_was_promised_is_not_offered_again() {
    let mut world = World::new(&["n1"]).await;
    world.class("disks", "kubernetes.io/no-provisioner").await;
    for name in ["a", "b", "c"] {
        world.claim(name, "disks", None).await;
    }
    world.volume("v1", "2Gi", json!({})).await;
    world.volume("v2", "1Gi", json!({})).await;
    for name in ["a", "b", "c"] {
        world.pod(name, &[name]).await;
    }
    let decided = world.decide();
    assert_eq!(asked(&decided[0].2), pair("v2", "a"), "the smallest");
    assert_eq!(
        asked(&decided[1].2),
        pair("v1", "b"),
        "the state doesn't show yet that the other one is taken"
    );
    assert!(decided[2].1.is_err());

    // The first one could not be bound.
    world.waiting.forget(&"a".into());
    let decided = world.decide();
    assert_eq!((decided[0].0.as_str(), asked(&decided[0].2)), ("a", pair("v2", "a")));
    assert!(
        decided[1].1.is_err(),
        "what is free again was offered to all, and {:?} was too late",
        decided[1].0
    );

    // It is written, and then bound: from then on the state says so.
    world.volume("v2", "1Gi", json!({"claimRef": {"namespace": "d", "name": "a", "uid": "a"}})).await;
    world.claim("a", "disks", Some("v2")).await;
    world.waiting.forget(&"b".into());
    let decided = world.decide();
    assert_eq!((decided[0].0.as_str(), asked(&decided[0].2)), ("b", pair("v1", "b")));
}

#[tokio::test]
async fn pods_with_one_claim_go_where_its_volume_is_to_be() {
    let mut world = World::new(&["n1", "n2"]).await;
    world.class("made", "example.com/disks").await;
    world.claim("c", "made", None).await;
    for name in ["p", "q"] {
        world.pod(name, &["c"]).await;
    }
    let decided = world.decide();
    assert_eq!(asked(&decided[0].2), pair("c", "n1"));
    assert_eq!(decided[1].1, Ok("n1".into()), "though replicas keep apart");

    // And the same with a volume that is there: on one of the nodes.
    world.class("disks", "kubernetes.io/no-provisioner").await;
    world.claim("d", "disks", None).await;
    world.volume("large", "9Gi", json!({})).await;
    let on_n2 = json!({"nodeSelectorTerms": [{"matchFields":
        [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]});
    world.volume("small", "1Gi", json!({"nodeAffinity": {"required": on_n2}})).await;
    for name in ["r", "s"] {
        world.pod(name, &["d"]).await;
    }
    let decided = world.decide();
    assert_eq!(decided[0].1, decided[1].1);
    assert_eq!(asked(&decided[0].2), asked(&decided[1].2));
}

impl World {
    /// A volume of a CSI driver that a claim has, with labels.
    async fn attachable(&mut self, name: &str, labels: Value) {
        let spec = json!({"csi": {"driver": "disks.example.com", "volumeHandle": name}});
        let volume = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
        self.put("", "persistentvolumes", "", volume).await;
        self.claim(name, "", Some(name)).await;
    }

    /// How many volumes of that driver can be attached to a node.
    async fn limit(&mut self, node: &str, count: i32) {
        let driver = json!({"name": "disks.example.com", "nodeID": node, "allocatable": {"count": count}});
        let csi_node = json!({"metadata": {"name": node}, "spec": {"drivers": [driver]}});
        self.put("storage.k8s.io", "csinodes", "", csi_node).await;
    }
}

#[tokio::test]
async fn no_more_volumes_go_to_a_node_than_can_be_attached() {
    let mut world = World::new(&["n1"]).await;
    world.limit("n1", 2).await;
    for name in ["a", "b", "c"] {
        world.attachable(name, json!({})).await;
    }
    world.pod("p", &["a", "b"]).await;
    assert_eq!(world.place(), Ok("n1".into()));
    world.pod("same", &["a"]).await;
    assert_eq!(world.place(), Ok("n1".into()), "that one is attached already");
    world.pod("plain", &[]).await;
    assert_eq!(world.place(), Ok("n1".into()));
    world.pod("q", &["c"]).await;
    assert_eq!(why(world.place()), "0/1 nodes are available: 1 node(s) exceed max volume count.");
    // A claim that gets its volume with the pod's node counts for what makes it.
    world.class("disks", "disks.example.com").await;
    world.claim("new", "disks", None).await;
    world.pod("r", &["new"]).await;
    let decided = world.decide();
    assert!(decided.iter().all(|(_, place, _)| place.is_err()), "{decided:?}");

    world.limit("n1", 3).await;
    let decided = world.decide();
    assert_eq!((decided[0].0.as_str(), &decided[0].1), ("q", &Ok("n1".into())));
    assert!(decided[1].1.is_err());
    world.waiting.forget(&"q".into());
    world.waiting.forget(&"p".into());
    world.waiting.forget(&"same".into());
    let places: Vec<_> = world.decide().into_iter().map(|(name, place, _)| (name, place.is_ok())).collect();
    let expected =
        [("p", true), ("q", true), ("r", false), ("same", true)].map(|(name, is)| (name.to_owned(), is));
    assert_eq!(places, expected, "what went was counted no longer");
}

#[tokio::test]
async fn what_is_attached_takes_room_until_it_is_detached() {
    let mut world = World::new(&["n1"]).await;
    world.limit("n1", 1).await;
    for name in ["left", "next"] {
        world.attachable(name, json!({})).await;
    }
    let volume = json!({"metadata": {"name": "left"}, "spec": {"claimRef": {"namespace": "d", "name": "left", "uid": "left"},
        "csi": {"driver": "disks.example.com", "volumeHandle": "left"}}});
    world.put("", "persistentvolumes", "", volume).await;
    let attachment = |node: &str| {
        json!({"metadata": {"name": "csi-left"}, "spec": {"attacher": "disks.example.com", "nodeName": node,
            "source": {"persistentVolumeName": "left"}}})
    };
    world.put("storage.k8s.io", "volumeattachments", "", attachment("n1")).await;
    world.pod("p", &["next"]).await;
    let full = "0/1 nodes are available: 1 node(s) exceed max volume count.";
    assert_eq!(why(world.place()), full, "no pod uses it, and it is attached still");
    world.pod("q", &["left"]).await;
    let decided: Vec<_> = world.decide().into_iter().map(|(name, place, _)| (name, place.is_ok())).collect();
    assert!(decided.contains(&("q".to_owned(), true)), "whose volume is there needs no room: {decided:?}");
    world.waiting.forget(&"q".into());
    // Attached to another node, it is of no weight here.
    world.put("storage.k8s.io", "volumeattachments", "", attachment("n2")).await;
    let decided: Vec<_> = world.decide().into_iter().map(|(name, place, _)| (name, place.is_ok())).collect();
    assert_eq!(decided, [("p".to_owned(), true), ("q".to_owned(), false)]);
}

#[tokio::test]
async fn a_pod_goes_to_the_zone_of_its_volume() {
    let mut world = World::new(&[]).await;
    for (name, zone) in [("n1", "a"), ("n2", "b")] {
        let metadata = json!({"name": name, "labels": {"topology.kubernetes.io/zone": zone}});
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        world.put("", "nodes", "", json!({"metadata": metadata, "status": status})).await;
    }
    world.attachable("v", json!({"topology.kubernetes.io/zone": "b"})).await;
    world.attachable("w", json!({"topology.kubernetes.io/zone": "c"})).await;
    world.pod("p", &["v"]).await;
    assert_eq!(world.place(), Ok("n2".into()));
    world.pod("q", &["w"]).await;
    assert_eq!(why(world.place()), "0/2 nodes are available: 2 node(s) had no available volume zone.");
}

impl World {
    /// A node with a label `disk`.
    async fn with_disk(&mut self, name: &str, disk: &str) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"allocatable": {"pods": "10"}, "conditions": ready});
        let metadata = json!({"name": name, "labels": {"disk": disk}});
        self.put("", "nodes", "", json!({"metadata": metadata, "status": status})).await;
    }

    /// A driver says what room it has for a class where a selector means.
    async fn room(&mut self, name: &str, selector: Value, more: Value) {
        let mut room = json!({"metadata": {"name": name, "namespace": "kube-system"}, "storageClassName": "disks",
            "nodeTopology": selector});
        room.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put("storage.k8s.io", "csistoragecapacities", "kube-system", room).await;
    }
}

#[tokio::test]
async fn a_volume_is_made_where_its_driver_says_that_there_is_room() {
    let mut world = World::new(&[]).await;
    world.with_disk("n1", "a").await;
    world.with_disk("n2", "b").await;
    world.with_disk("n3", "c").await;
    world.class("disks", "disks.example.org").await;
    let of_a = json!({"matchLabels": {"disk": "a"}});
    world.room("a", of_a.clone(), json!({"capacity": "500Mi"})).await;
    // The largest volume counts before what is free in all.
    world
        .room(
            "b",
            json!({"matchLabels": {"disk": "b"}}),
            json!({"capacity": "9Gi", "maximumVolumeSize": "900Mi"}),
        )
        .await;
    world.room("nowhere", json!(null), json!({"capacity": "9Gi"})).await;
    for name in ["one", "two"] {
        world.claim(name, "disks", None).await;
    }
    world.pod("p", &["one"]).await;
    assert!(world.place().is_ok(), "its driver doesn't say that it tells");
    world.pod("q", &["two"]).await;
    let driver = json!({"metadata": {"name": "disks.example.org"}, "spec": {"storageCapacity": true}});
    world.put("storage.k8s.io", "csidrivers", "", driver).await;
    let none = "0/3 nodes are available: 3 node(s) did not have enough free storage.";
    assert_eq!(why(world.place()), none);
    assert!(world.decide().is_empty(), "it rests until something changes");
    world.room("a", of_a, json!({"capacity": "1Gi"})).await;
    assert_eq!(world.place(), Ok("n1".to_owned()));

    // A selector without labels means by its expressions.
    world.claim("three", "disks", None).await;
    world.pod("r", &["three"]).await;
    let not_a = json!({"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["a", "b"]}]});
    world.room("c", not_a, json!({"maximumVolumeSize": "2Gi"})).await;
    world.room("a", json!({"matchLabels": {"disk": "a"}}), json!({"capacity": "0"})).await;
    assert_eq!(world.place(), Ok("n3".to_owned()));
}
