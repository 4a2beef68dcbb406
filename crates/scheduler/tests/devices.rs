//! Where pods with claims of devices go, and what their claims get.
#![allow(clippy::unwrap_used)]

mod world;

use objects::Write;
use serde_json::{Value, json};
use world::World;

const GROUP: &str = "resource.k8s.io";

impl World {
    /// Nodes, each with that number of devices, and a class that means all of them.
    async fn with_devices(nodes: &[(&str, usize)]) -> Self {
        let mut world = World::empty();
        let class = json!({"metadata": {"name": "any"}, "spec": {}});
        world.put(GROUP, "deviceclasses", "", class).await;
        for (name, count) in nodes {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            let status = json!({"allocatable": {"pods": "10"}, "conditions": ready});
            world.put("", "nodes", "", json!({"metadata": {"name": name}, "status": status})).await;
            world.slice(name, *count).await;
        }
        world
    }

    async fn slice(&mut self, node: &str, count: usize) {
        let devices: Vec<_> = (0..count).map(|n| json!({"name": format!("{node}-{n}")})).collect();
        let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": "d.example.com", "nodeName": node, "pool": pool, "devices": devices});
        self.put(GROUP, "resourceslices", "", json!({"metadata": {"name": node}, "spec": spec})).await;
    }

    async fn claim(&mut self, name: &str, status: Value) {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "any"}});
        let claim = json!({"metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"devices": {"requests": [request]}}, "status": status});
        self.put(GROUP, "resourceclaims", "d", claim).await;
    }

    async fn pod(&mut self, name: &str, claims: Value, status: Value) {
        let spec = json!({"containers": [{"name": "c"}], "resourceClaims": claims});
        let metadata = json!({"name": name, "namespace": "d", "uid": name});
        self.put("", "pods", "d", json!({"metadata": metadata, "spec": spec, "status": status})).await;
    }

    /// The one pod that waits: its place, and what is to be written before.
    fn decide(&mut self) -> (Result<String, String>, Vec<Write>) {
        let mut decisions = self.decisions();
        assert_eq!(decisions.len(), 1);
        let decision = decisions.remove(0);
        let why = |why: std::sync::Arc<scheduler::Unschedulable>| {
            why.to_string().split(" preemption: ").next().unwrap().to_owned()
        };
        (decision.place.map_err(why), decision.before.unwrap_or_default())
    }
}

fn named(claim: &str) -> Value {
    json!([{"name": "x", "resourceClaimName": claim}])
}

/// What is written into statuses.
fn statuses(writes: &[Write]) -> Vec<&Value> {
    let status = |write| match write {
        &Write::Merge { subresource: "status", ref patch, .. } => Some(&patch["status"]),
        _ => None,
    };
    writes.iter().filter_map(status).collect()
}

/// The device that is written.
fn device(status: &Value) -> &str {
    status["allocation"]["devices"]["results"][0]["device"].as_str().unwrap()
}

#[tokio::test]
async fn a_pod_goes_where_there_are_devices_for_its_claims() {
    let mut world = World::with_devices(&[("n1", 0), ("n2", 1)]).await;
    world.claim("a", json!({})).await;
    world.pod("p", named("a"), json!({})).await;
    let (place, writes) = world.decide();
    assert_eq!(place, Ok("n2".to_owned()));
    let Write::Merge { subject, subresource: "", patch } = &writes[0] else { panic!("{writes:?}") };
    assert_eq!(subject.kind, "ResourceClaim");
    assert_eq!(patch["metadata"]["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    let status = statuses(&writes)[0];
    assert_eq!(device(status), "n2-0");
    assert_eq!(status["reservedFor"], json!([{"resource": "pods", "name": "p", "uid": "p"}]));

    // What was promised is nobody else's, even before it is written.
    world.claim("b", json!({})).await;
    world.pod("q", named("b"), json!({})).await;
    let none = "0/2 nodes are available: 2 cannot allocate all claims.";
    assert_eq!(world.decide().0, Err(none.to_owned()));
    world.slice("n1", 1).await;
    let (place, writes) = world.decide();
    assert_eq!((place, device(statuses(&writes)[0])), (Ok("n1".to_owned()), "n1-0"));
    // A pod that gives up gives its devices back.
    world.waiting.forget(&"q".into());
    let (place, writes) = world.decide();
    assert_eq!((place, device(statuses(&writes)[0])), (Ok("n1".to_owned()), "n1-0"));
}

#[tokio::test]
async fn a_claim_that_has_devices_draws_its_pods_there() {
    let mut world = World::with_devices(&[("n1", 1), ("n2", 1)]).await;
    let on_n2 = json!({"nodeSelectorTerms": [{"matchFields":
        [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]});
    let result = json!({"request": "r", "driver": "d.example.com", "pool": "n2", "device": "n2-0"});
    let allocation = json!({"devices": {"results": [result]}, "nodeSelector": on_n2});
    let other = json!({"resource": "pods", "name": "other", "uid": "other"});
    world.claim("a", json!({"allocation": allocation, "reservedFor": [other]})).await;
    world.pod("p", named("a"), json!({})).await;
    let (place, writes) = world.decide();
    assert_eq!((place, writes.len()), (Ok("n2".to_owned()), 1));
    let users = statuses(&writes)[0]["reservedFor"].as_array().unwrap();
    let users: Vec<_> = users.iter().map(|user| user["uid"].as_str().unwrap()).collect();
    assert_eq!(users, ["other", "p"]);

    // The device is taken.
    world.claim("b", json!({})).await;
    world.pod("q", named("b"), json!({})).await;
    let (place, writes) = world.decide();
    assert_eq!((place, device(statuses(&writes)[0])), (Ok("n1".to_owned()), "n1-0"));

    // A claim of one pod alone, on a node that takes no pods any more: it gets other devices.
    let own = json!({"resource": "pods", "name": "r", "uid": "r"});
    world.slice("n1", 2).await;
    world.claim("c", json!({"allocation": allocation, "reservedFor": [own]})).await;
    let cordoned = json!({"metadata": {"name": "n2"}, "spec": {"unschedulable": true},
        "status": {"allocatable": {"pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}});
    world.put("", "nodes", "", cordoned).await;
    world.pod("r", named("c"), json!({})).await;
    let (place, writes) = world.decide();
    assert!(place.unwrap_err().contains("1 resourceclaim not available on the node"));
    assert_eq!(statuses(&writes), [&json!({"allocation": null, "reservedFor": null})]);
    world.claim("c", json!({})).await;
    assert_eq!(world.decide().0, Ok("n1".to_owned()));
}

#[tokio::test]
async fn a_pod_waits_for_claims_that_are_to_be_made_for_it() {
    let mut world = World::with_devices(&[("n1", 2)]).await;
    let by_template = json!([{"name": "x", "resourceClaimTemplateName": "t"}]);
    world.pod("p", by_template.clone(), json!({})).await;
    let why = "0/1 nodes are available: pod \"d/p\": ResourceClaim not created yet.";
    assert_eq!(world.decide().0, Err(why.to_owned()));
    world.claim("p-x-1", json!({})).await;
    let made = json!({"resourceClaimStatuses": [{"name": "x", "resourceClaimName": "p-x-1"}]});
    world.pod("p", by_template, made).await;
    let why = world.decide().0.unwrap_err();
    assert!(why.ends_with("ResourceClaim d/p-x-1 was not created for pod d/p (pod is not owner)."), "{why}");
    world.pod("q", named("none"), json!({})).await;
    let why = world.decide().0.unwrap_err();
    assert!(why.contains("resourceclaim.resource.k8s.io \"none\" not found"), "{why}");
}
