//! Pods are placed by the profile that they name.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use objects::{Pod, Pool};
use scheduler::{Cluster, Node, Profile, Profiles, Silence, Waiting};
use serde_json::{Value, json};
use store::{Memory, Store, Txn};

fn named(name: &str) -> Profile {
    Profile { name: name.to_owned(), ..Profile::default() }
}

fn cluster(profile: Profile, nodes: &[(&str, Value)]) -> Cluster {
    let mut cluster = Cluster::new(Profiles::new([profile]));
    for (name, spec) in nodes {
        let labels = json!({"kubernetes.io/hostname": name, "zone": name});
        let status = json!({"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": if *name == "n2" { json!([{"names": ["i:1"], "sizeBytes": 900_000_000}]) } else { json!([]) }});
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status});
        cluster.set_node(name, Some(Arc::new(serde_json::from_value::<Node>(node).unwrap())));
    }
    cluster
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "a"}, "ownerReferences": owner},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn a_filter_that_is_off_keeps_nobody_away() {
    let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let term = json!({"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "zone"});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let spread = json!([{"maxSkew": 1, "topologyKey": "none", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}}}]);
    let large = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "9"}}}]});
    for (plugin, node, spec) in [
        ("TaintToleration", taint, json!({})),
        ("NodeUnschedulable", json!({"unschedulable": true}), json!({})),
        ("NodeAffinity", json!({}), json!({"nodeSelector": {"disk": "ssd"}})),
        ("NodeResourcesFit", json!({}), large),
        ("InterPodAffinity", json!({}), json!({"affinity": {"podAntiAffinity": required}})),
        ("PodTopologySpread", json!({}), json!({"topologySpreadConstraints": spread})),
    ] {
        for is_off in [false, true] {
            let mut profile = Profile::default();
            assert!(!is_off || profile.skip_filter(plugin));
            let mut cluster = cluster(profile, &[("n1", node.clone())]);
            cluster.place(&pod("there", json!({})), "n1");
            assert_eq!(cluster.schedule(&pod("p", spec.clone())).is_ok(), is_off, "{plugin}");
        }
    }
    assert!(!Profile::default().skip_filter("Coscheduling"));
}

#[test]
fn scores_count_by_their_weight_or_not_at_all() {
    // n1 discourages, and n2 has the image.
    let nodes = [
        ("n1", json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]})),
        (
            "n2",
            json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}, {"key": "l", "effect": "PreferNoSchedule"}]}),
        ),
    ];
    for (weights, expected) in [
        (vec![], "n1"),
        (vec![("TaintToleration", 0)], "n2"),
        (vec![("TaintToleration", 0), ("ImageLocality", 0)], "n1"),
    ] {
        let mut profile = Profile::default();
        weights.iter().for_each(|(plugin, weight)| assert!(profile.weigh(plugin, *weight)));
        assert_eq!(
            cluster(profile, &nodes).schedule(&pod("p", json!({}))).as_deref(),
            Ok(expected),
            "{weights:?}"
        );
    }
    // The room that is left against the image that is there.
    for (weight, expected) in [(1, "n1"), (5, "n2")] {
        let mut profile = Profile::default();
        assert!(profile.weigh("ImageLocality", weight) && profile.weigh("NodeResourcesFit", 3));
        let mut cluster = cluster(profile, &[("n1", json!({})), ("n2", json!({}))]);
        let other = json!({"metadata": {"name": "o", "namespace": "d"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "800m", "memory": "800Mi"}}}]}});
        cluster.place(&Arc::new(serde_json::from_value(other).unwrap()), "n2");
        assert_eq!(cluster.schedule(&pod("p", json!({}))).as_deref(), Ok(expected), "{weight}");
    }
    assert!(!Profile::default().weigh("NodeAffinity", 7), "it has no weight");
}

#[test]
fn pods_without_constraints_have_those_of_their_profile() {
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
    let profile =
        Profile { constraints: vec![serde_json::from_value(constraint).unwrap()], ..Profile::default() };
    let mut cluster = cluster(profile, &[("n1", json!({})), ("n2", json!({"unschedulable": true}))]);
    cluster.place(&pod("there", json!({})), "n1");
    let why = cluster.schedule(&pod("p", json!({}))).unwrap_err().to_string();
    assert!(why.contains("1 node(s) didn't match pod topology spread constraints"), "{why}");
    let own = json!([{"maxSkew": 9, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    assert!(cluster.schedule(&pod("q", json!({"topologySpreadConstraints": own}))).is_ok());
}

#[test]
fn where_preemption_is_off_nobody_goes() {
    let all = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}], "priority": 1});
    let mut more = all.clone();
    more["priority"] = 2.into();
    for preempts in [true, false] {
        let mut cluster = cluster(Profile { preempts, ..Profile::default() }, &[("n1", json!({}))]);
        cluster.place(&pod("there", all.clone()), "n1");
        let why = cluster.schedule(&pod("p", more.clone())).unwrap_err();
        assert_eq!(matches!(why.preemption, scheduler::Preemption::Possible(_)), preempts);
        assert!(!why.to_string().contains("preemption"), "{why}");
    }
}

#[tokio::test]
async fn pods_that_name_no_profile_are_left_to_others() {
    let store = Memory::default();
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": ready}});
    store.txn(Txn::put(objects::key("", "nodes", "", "n1"), node.to_string())).await.unwrap();
    for (name, scheduler) in
        [("a", "fast"), ("b", "slow"), ("c", "default-scheduler"), ("d", ""), ("e", "volcano")]
    {
        let metadata = json!({"name": name, "namespace": "d", "uid": name});
        let pod = json!({"metadata": metadata, "spec": {"containers": [], "schedulerName": scheduler}});
        store.txn(Txn::put(objects::key("", "pods", "d", name), pod.to_string())).await.unwrap();
    }
    // Tests stand for the driver, which reads the clock.
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    for (profiles, expected) in [
        (Profiles::default(), vec!["c", "d"]),
        (Profiles::new([named("fast"), named("slow")]), vec!["a", "b"]),
    ] {
        let mut waiting = Waiting::under(profiles, store.snapshot(), &Pool::default());
        let decisions = waiting.decide(&Silence::new(), usize::MAX, now);
        let names: Vec<_> =
            decisions.iter().filter_map(|decision| decision.pod.metadata.name.clone()).collect();
        assert_eq!(names, expected);
    }
}
