//! Where pods go and why not: cases, and the laws that hold for any cluster.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::Pod;
use proptest::prelude::*;
use scheduler::{Cluster, Node};
use serde_json::{Value, json};

fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut node, extra);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    merge(&mut pod, json!({"spec": spec}));
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn cluster(nodes: &[Arc<Node>]) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(node.name(), Some(node.clone()));
    }
    cluster
}

fn three() -> Vec<Arc<Node>> {
    ["n1", "n2", "n3"].map(|name| node(name, json!({}))).to_vec()
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn taking_port() -> Value {
    json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]})
}

#[test]
fn what_stands_against_nodes_is_said_in_the_words_of_kubernetes() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let away = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    let term =
        json!({"labelSelector": {"matchLabels": {"app": "b"}}, "topologyKey": "kubernetes.io/hostname"});
    let near =
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    // What goes before `preemption:`; why preemption doesn't help is in the tests about it.
    let filters = |why: String| why.split(" preemption: ").next().map(str::to_owned).unwrap();
    for (node_extra, spec, expected) in [
        (json!({}), asking("5"), "1 Insufficient cpu"),
        (json!({"status": {"allocatable": {"pods": "1"}}}), json!({}), "1 Too many pods"),
        (json!({"spec": {"unschedulable": true}}), json!({}), "1 node(s) were unschedulable"),
        (tainted.clone(), json!({}), "1 node(s) had untolerated taint(s)"),
        (not_ready, json!({}), "1 node(s) had untolerated taint(s)"),
        (away, json!({}), "1 node(s) had untolerated taint(s)"),
        (
            json!({}),
            json!({"nodeSelector": {"disk": "ssd"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (json!({}), near, "1 node(s) didn't match pod affinity rules"),
        (json!({}), taking_port(), "1 node(s) didn't have free ports for the requested pod ports"),
    ] {
        let mut cluster = cluster(&[node("n1", node_extra)]);
        cluster.place(&pod("there", taking_port()), "n1");
        let why = cluster.schedule(&pod("p", spec)).unwrap_err();
        assert_eq!(filters(why.to_string()), format!("0/1 nodes are available: {expected}."));
    }
    let why = Cluster::default().schedule(&pod("p", json!({}))).unwrap_err();
    assert_eq!(why.to_string(), "no nodes available to schedule pods");
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    assert_eq!(cluster(&[node("n1", tainted)]).schedule(&pod("p", tolerant)), Ok("n1".into()));
}

#[test]
fn reasons_are_counted_over_all_nodes() {
    let nodes = [
        node("n1", json!({})),
        node("n2", json!({})),
        node("n3", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})),
    ];
    let why = cluster(&nodes).schedule(&pod("p", asking("5"))).unwrap_err();
    let expected = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: \
                    0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    assert_eq!(why.to_string(), expected);
}

#[test]
fn a_silent_host_gets_nothing_new_even_before_it_is_marked() {
    let mut cluster = cluster(&three());
    cluster.set_silent(["n1".to_owned(), "n3".to_owned()].iter());
    for at in 0..5 {
        let pod = pod(&format!("p{at}"), json!({}));
        let node = cluster.schedule(&pod).unwrap();
        assert_eq!(node, "n2");
        cluster.place(&pod, &node);
    }
}

#[test]
fn node_affinity_is_met_where_required_and_sought_where_preferred() {
    let nodes = [
        node("n1", json!({"metadata": {"labels": {"size": "3", "disk": "ssd"}}})),
        node("n2", json!({"metadata": {"labels": {"size": "9"}}})),
        node("n3", json!({})),
    ];
    let required = |term: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [term]}}}})
    };
    let labels = |expression: Value| json!({"matchExpressions": [expression]});
    for (term, expected) in [
        (labels(json!({"key": "size", "operator": "Gt", "values": ["5"]})), "n2"),
        (labels(json!({"key": "size", "operator": "Lt", "values": ["5"]})), "n1"),
        (labels(json!({"key": "size", "operator": "DoesNotExist"})), "n3"),
        (labels(json!({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]})), "n1"),
        (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n3"]}]}), "n3"),
    ] {
        let chosen = cluster(&nodes).schedule(&pod("p", required(term.clone())));
        assert_eq!(chosen.unwrap(), expected, "{term}");
    }
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": labels(json!({"key": "size", "operator": "Exists"}))},
        {"weight": 5, "preference": labels(json!({"key": "size", "operator": "In", "values": ["9"]}))},
    ]}}});
    assert_eq!(cluster(&nodes).schedule(&pod("p", preferred)).unwrap(), "n2");
}

#[test]
fn pods_keep_near_and_apart_as_they_ask() {
    let mut cluster = cluster(&three());
    let term = json!([{"labelSelector": {"matchLabels": {"app": "a"}},
        "topologyKey": "kubernetes.io/hostname"}]);
    let required =
        |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let near = pod("near", required("podAffinity"));
    assert_eq!(cluster.schedule(&near).unwrap(), "n1", "the first of its kind may be anywhere");
    cluster.place(&pod("first", json!({})), "n2");
    assert_eq!(cluster.schedule(&near).unwrap(), "n2");
    for expected in ["n1", "n3"] {
        let apart = pod(expected, required("podAntiAffinity"));
        assert_eq!(cluster.schedule(&apart).unwrap(), expected);
        cluster.place(&apart, expected);
    }
    let beside = cluster.schedule(&pod("p", json!({}))).unwrap();
    assert_eq!(beside, "n2", "those that keep apart keep others away too");
    let why = cluster.schedule(&pod("apart", required("podAntiAffinity"))).unwrap_err();
    assert_eq!(
        why.to_string(),
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are \
         available: 3 No preemption victims found for incoming pod."
    );
}

#[test]
fn spread_constraints_are_kept() {
    let zone = |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"zone": zone}}}));
    let mut cluster = cluster(&[zone("n1", "a"), zone("n2", "a"), zone("n3", "b"), node("n4", json!({}))]);
    let spread = |when: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": "a"}}}]})
    };
    cluster.place(&pod("x", json!({})), "n1");
    assert_eq!(cluster.schedule(&pod("p", spread("DoNotSchedule"))).unwrap(), "n3");
    assert_eq!(cluster.schedule(&pod("p", spread("ScheduleAnyway"))).unwrap(), "n3");
    let cordoned = json!({"metadata": {"labels": {"zone": "b"}}, "spec": {"unschedulable": true}});
    cluster.set_node("n3", Some(node("n3", cordoned)));
    let why = cluster.schedule(&pod("p", spread("DoNotSchedule"))).unwrap_err();
    assert_eq!(
        why.to_string(),
        "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required \
         label), 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints. preemption: \
         0/4 nodes are available: 2 No preemption victims found for incoming pod, 2 Preemption is not helpful for \
         scheduling."
    );
    assert_eq!(cluster.schedule(&pod("p", spread("ScheduleAnyway"))).unwrap(), "n2");
}

#[test]
fn all_terms_together_choose_the_company_and_all_labels_the_domains() {
    let term = |app: &str, namespaces: Value| {
        json!({"labelSelector": {"matchLabels": {"app": app}}, "namespaces": namespaces,
            "topologyKey": "kubernetes.io/hostname"})
    };
    let near = |terms: Value| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    let mut cluster = cluster(&three());
    cluster.place(&pod("x", json!({})), "n2");
    let both = near(json!([term("a", json!(["d"])), term("b", json!(["d"]))]));
    let why = cluster.schedule(&pod("p", both)).unwrap_err().to_string();
    assert!(why.starts_with("0/3 nodes are available: 3 node(s) didn't match pod affinity rules."), "{why}");
    let one = near(json!([term("a", json!(["d"])), term("a", json!(["d", "e"]))]));
    assert_eq!(cluster.schedule(&pod("p", one)).as_deref(), Ok("n2"));

    // n3 has no rack: it is no domain of the zones either, or the empty one would keep all away.
    let labels =
        |zone: &str, rack: Option<&str>| json!({"metadata": {"labels": {"zone": zone, "rack": rack}}});
    for (name, zone, rack) in [("n1", "a", Some("r")), ("n2", "b", Some("r")), ("n3", "c", None)] {
        let mut labels = labels(zone, rack);
        if rack.is_none() {
            labels["metadata"]["labels"].as_object_mut().unwrap().remove("rack");
        }
        cluster.set_node(name, Some(node(name, labels)));
    }
    cluster.place(&pod("y", json!({})), "n1");
    let spread = |key: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "a"}}})
    };
    let place =
        cluster.schedule(&pod("p", json!({"topologySpreadConstraints": [spread("zone"), spread("rack")]})));
    assert!(place.is_ok(), "{place:?}");
}

#[test]
fn a_runtime_class_s_selector_counts() {
    let special = node("n2", json!({"metadata": {"labels": {"vm": "yes"}}}));
    let mut cluster = cluster(&[node("n1", json!({})), special]);
    let selector = BTreeMap::from([("vm".to_owned(), "yes".to_owned())]);
    cluster.set_runtime_class("kata", Some(selector));
    assert_eq!(cluster.schedule(&pod("p", json!({"runtimeClassName": "kata"}))).unwrap(), "n2");
}

fn replica(name: &str, cpu: u32) -> Arc<Pod> {
    let mut replica = Pod::clone(&pod(name, asking(&format!("{cpu}m"))));
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    replica.metadata.owner_references = Some(serde_json::from_value(owner).unwrap());
    Arc::new(replica)
}

#[test]
fn pods_that_are_there_draw_others_near_or_keep_them_off_but_never_break_the_spread() {
    let affinity = |kind: &str, rule: Value| json!({"affinity": {kind: rule}});
    let term =
        json!({"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"});
    let preferred = |weight: i32| json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let other = |spec: Value| {
        let mut other = Pod::clone(&pod("other", spec));
        other.metadata.labels = Some(Arc::new(BTreeMap::from([("app".to_owned(), "other".to_owned())])));
        Arc::new(other)
    };
    for (rule, expected) in [
        (affinity("podAffinity", preferred(3)), "n2"),
        (affinity("podAntiAffinity", preferred(3)), "n1"),
        // Who must be near others would have more of them near.
        (affinity("podAffinity", required), "n2"),
    ] {
        let mut cluster = cluster(&three());
        cluster.place(&other(rule.clone()), "n2");
        assert_eq!(cluster.schedule(&pod("p", json!({}))).unwrap(), expected, "{rule}");
        cluster.place(&pod("p", json!({})), "n2");
        let second = cluster.schedule(&pod("q", json!({}))).unwrap();
        assert_ne!(second, "n2", "one power cut would take both: {rule}");
    }
}

#[test]
fn a_host_with_room_in_proportion_and_with_the_image_is_chosen() {
    let sized = |name: &str, cpu: &str, memory: &str| {
        node(name, json!({"status": {"allocatable": {"cpu": cpu, "memory": memory}}}))
    };
    let asks = |cpu: &str, memory: &str| json!({"containers": [{"name": "c", "image": "r:5000/web", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
    // Both have as much left on average; n1 would have no memory left, n2 a half of both.
    let nodes = [sized("n1", "10", "1Gi"), sized("n2", "2", "2Gi")];
    assert_eq!(cluster(&nodes).schedule(&pod("p", asks("1", "1Gi"))).unwrap(), "n2");
    // A container that says nothing weighs something all the same.
    let mut busy = cluster(&three());
    let silent = |name: &str| {
        let mut pod =
            Pod::clone(&pod(name, json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]})));
        pod.metadata.labels = None;
        Arc::new(pod)
    };
    busy.place(&silent("s1"), "n1");
    busy.place(&replica("r", 100), "n2");
    busy.place(&replica("r2", 400), "n3");
    assert_eq!(busy.schedule(&silent("p")).unwrap(), "n2");
    // Of two that are alike the one that needn't pull.
    let image = json!([{"names": ["r:5000/web:latest"], "sizeBytes": 700_000_000}]);
    let has = node("n3", json!({"status": {"images": image}}));
    let nodes = [node("n1", json!({})), node("n2", json!({})), has];
    assert_eq!(cluster(&nodes).schedule(&pod("p", asks("1", "1Gi"))).unwrap(), "n3");
}

proptest! {
    #[test]
    fn no_node_is_ever_given_more_than_it_has(
        sizes in prop::collection::vec((0u32..4000, 0u32..12), 1..6),
        asks in prop::collection::vec(0u32..2000, 1..60),
    ) {
        let nodes: Vec<_> = sizes.iter().enumerate().map(|(at, (cpu, pods))| {
            let allocatable = json!({"cpu": format!("{cpu}m"), "pods": pods.to_string()});
            node(&format!("n{at}"), json!({"status": {"allocatable": allocatable}}))
        }).collect();
        let mut cluster = cluster(&nodes);
        let mut given: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for (at, ask) in asks.iter().enumerate() {
            let pod = pod(&format!("p{at}"), asking(&format!("{ask}m")));
            let fits = |name: &str, (cpu, pods): &(u32, u32)| {
                let (used, count) = given.get(name).copied().unwrap_or_default();
                (used + ask <= *cpu || *ask == 0) && count < *pods
            };
            let any = sizes.iter().enumerate().any(|(at, size)| fits(&format!("n{at}"), size));
            match cluster.schedule(&pod) {
                Ok(name) => {
                    let at: usize = name[1..].parse().unwrap();
                    prop_assert!(fits(&name, &sizes[at]));
                    cluster.place(&pod, &name);
                    let entry = given.entry(name).or_default();
                    *entry = (entry.0 + ask, entry.1 + 1);
                }
                Err(_) => prop_assert!(!any, "a node had room"),
            }
        }
    }

    #[test]
    fn replicas_are_spread_evenly_whatever_else_runs(
        others in prop::collection::vec((0usize..5, 1u32..300), 0..20),
        hosts in 1usize..6,
        replicas in 1usize..12,
    ) {
        let nodes: Vec<_> = (0..hosts).map(|at| {
            node(&format!("n{at}"), json!({"status": {"allocatable": {"cpu": "100", "pods": "500"}}}))
        }).collect();
        let mut cluster = cluster(&nodes);
        for (at, (host, cpu)) in others.iter().enumerate() {
            cluster.place(&pod(&format!("o{at}"), asking(&format!("{cpu}m"))), &format!("n{}", host % hosts));
        }
        let mut count = vec![0usize; hosts];
        for at in 0..replicas {
            let replica = replica(&format!("r{at}"), 100);
            let name = cluster.schedule(&replica).unwrap();
            cluster.place(&replica, &name);
            count[name[1..].parse::<usize>().unwrap()] += 1;
            prop_assert!(count.iter().max().unwrap() - count.iter().min().unwrap() <= 1, "{count:?}");
        }
    }
}
