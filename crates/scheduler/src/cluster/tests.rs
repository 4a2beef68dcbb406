//! That work follows what changed.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_report_of_images_wakes_no_pod_and_is_looked_at_all_the_same() {
    let node = |name: &str, cpu: &str, images: Value, revision: u64| {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"conditions": ready, "allocatable": {"cpu": cpu}, "images": images});
        let node = json!({"metadata": {"name": name}, "status": status});
        let mut node: Node = serde_json::from_value(node).unwrap();
        node.metadata.revision = Some(store::Revision(revision));
        Some(Arc::new(node))
    };
    let container = json!({"name": "c", "image": "i:1"});
    let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [container]}});
    let pod = Arc::new(serde_json::from_value::<Pod>(pod).unwrap());
    let mut cluster = Cluster::default();
    for name in ["n1", "n2"] {
        assert_eq!(cluster.set_node(name, node(name, "1", json!([]), 1)), Hope::ALL);
    }
    assert_eq!(cluster.schedule(&pod).as_deref(), Ok("n1"));
    let images = json!([{"names": ["i:1"], "sizeBytes": 900_000_000}]);
    assert_eq!(cluster.set_node("n2", node("n2", "1", images.clone(), 2)), Hope::NONE);
    assert_eq!(cluster.schedule(&pod).as_deref(), Ok("n2"), "its image is there");
    let clock = cluster.clock;
    assert_eq!(cluster.set_node("n2", node("n2", "1", images.clone(), 3)), Hope::NONE);
    assert_eq!(cluster.clock, clock, "nothing is new");
    assert_eq!(cluster.set_node("n2", node("n2", "2", images, 4)), Hope::ALL);
}

#[test]
fn what_pods_wished_that_are_gone_costs_nothing() {
    let mut cluster = Cluster::default();
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let node = json!({"metadata": {"name": "n", "labels": {"k": "v"}}, "status": {"conditions": ready}});
    cluster.set_node("n", Some(Arc::new(serde_json::from_value(node).unwrap())));
    let pod = |name: &str, affinity: Value| {
        let metadata = json!({"name": name, "namespace": "d", "labels": {"app": name}});
        let pod = json!({"metadata": metadata, "spec": {"containers": [], "affinity": affinity}});
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let term = json!({"labelSelector": {"matchLabels": {"app": "p"}}, "topologyKey": "k"});
    let preferred = json!([{"weight": 5, "podAffinityTerm": term}]);
    let near = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    let (wishes, asks) = (pod("w", near), pod("p", Value::Null));
    cluster.place(&wishes, "n");
    assert_eq!(cluster.schedule(&asks).as_deref(), Ok("n"));
    assert!(cluster.ledgers[0].is_soft());
    cluster.remove(&wishes);
    assert_eq!(cluster.schedule(&asks).as_deref(), Ok("n"));
    assert!(!cluster.ledgers[0].is_soft());
}

#[test]
fn a_pod_that_gets_its_place_is_looked_at_once() {
    let mut cluster = Cluster::default();
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let node = json!({"metadata": {"name": "n"}, "status": {"conditions": ready}});
    cluster.set_node("n", Some(Arc::new(serde_json::from_value(node).unwrap())));
    let pod = |n: usize, status: &str| {
        let metadata =
            json!({"name": n.to_string(), "namespace": "d", "labels": {"app": (n % 3).to_string()}});
        let pod = json!({"metadata": metadata, "spec": {"containers": []}, "status": {"phase": status}});
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    for n in 0..100 {
        let waiting = pod(n, "Pending");
        assert_eq!(cluster.schedule(&waiting).as_deref(), Ok("n"));
        cluster.place(&waiting, "n");
        // Its bind, and its host's report.
        cluster.place(&pod(n, "Pending"), "n");
        cluster.place(&pod(n, "Running"), "n");
    }
    assert_eq!((cluster.classes.built(), cluster.classes.len()), (100, 3));
}
