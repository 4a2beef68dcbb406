//! Who goes for a pod of higher priority, and what is said where nobody does.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use objects::Pod;
use scheduler::{Cluster, Node, Preemption, Victims};
use serde_json::{Value, json};

/// Three nodes of four processors, each in a zone of its name.
fn three() -> Cluster {
    let mut cluster = Cluster::default();
    for name in ["n1", "n2", "n3"] {
        node(&mut cluster, name, json!({}));
    }
    cluster
}

fn node(cluster: &mut Cluster, name: &str, spec: Value) {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": name}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    cluster.set_node(name, Some(Arc::new(serde_json::from_value::<Node>(node).unwrap())));
}

/// A pod with its name as label, which got its place in a minute of an hour.
fn pod(name: &str, priority: i32, cpu: &str, minute: u8, extra: Value) -> Arc<Pod> {
    let scheduled = json!({"type": "PodScheduled", "status": "True",
        "lastTransitionTime": format!("2026-01-01T00:{minute:02}:00Z")});
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": name}},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"conditions": [scheduled]},
    });
    for (field, value) in extra.as_object().unwrap() {
        match field.as_str() {
            "labels" | "deletionTimestamp" => pod["metadata"][field] = value.clone(),
            "conditions" => pod["status"][field] = value.clone(),
            _ => pod["spec"][field] = value.clone(),
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn budget(cluster: &mut Cluster, name: &str, app: &str, allowed: i32) {
    let budget = json!({
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    cluster.set_budget("d", name, Some(Arc::new(serde_json::from_value(budget).unwrap())));
}

fn victims(cluster: &mut Cluster, pod: &Arc<Pod>) -> Option<(String, Vec<String>)> {
    match &cluster.schedule(pod).unwrap_err().preemption {
        Preemption::Possible(Victims { node, pods, .. }) => {
            Some((node.clone(), pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()))
        }
        _ => None,
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A pod on a node: its node, name, priority, processors and the minute when it came.
type There = (&'static str, &'static str, i32, &'static str, u8);
/// The node that is chosen, with who goes.
type Choice = Option<(&'static str, &'static [&'static str])>;
/// What it is about, who is there, whom budgets protect (and how many may go), and the choice.
type Case = (&'static str, &'static [There], &'static [(&'static str, i32)], Choice);

#[test]
fn the_node_that_suffers_least_is_chosen_and_as_few_go_as_must() {
    let table: &[Case] = &[
        (
            "a pod that need not go is spared, the most important first",
            &[
                ("n1", "a", 1, "1", 0),
                ("n1", "b", 2, "1", 0),
                ("n1", "c", 3, "2", 0),
                ("n2", "x", 9, "4", 0),
                ("n3", "y", 9, "4", 0),
            ],
            &[],
            Some(("n1", &["b", "a"])),
        ),
        (
            "a protected pod goes only where no other can",
            &[("n1", "a", 1, "4", 0), ("n2", "b", 4, "4", 0), ("n3", "y", 9, "4", 0)],
            &[("a", 0)],
            Some(("n2", &["b"])),
        ),
        (
            "a budget protects one of two that are alike",
            &[("n1", "a", 1, "2", 0), ("n1", "b", 1, "2", 1), ("n2", "x", 9, "4", 0), ("n3", "y", 9, "4", 0)],
            &[("a", 0)],
            Some(("n1", &["b"])),
        ),
        (
            "where all are protected, one goes all the same",
            &[("n1", "a", 1, "4", 0), ("n2", "x", 9, "4", 0), ("n3", "y", 9, "4", 0)],
            &[("a", 0)],
            Some(("n1", &["a"])),
        ),
        (
            "the lowest highest priority",
            &[("n1", "a", 3, "4", 0), ("n2", "b", 2, "2", 0), ("n2", "c", 2, "2", 0), ("n3", "d", 4, "4", 0)],
            &[],
            Some(("n2", &["c"])),
        ),
        (
            "the lowest sum of priorities",
            &[
                ("n1", "a", 3, "3", 0),
                ("n1", "b", 2, "3", 0),
                ("n2", "c", 3, "3", 0),
                ("n2", "d", 1, "3", 0),
                ("n3", "e", 4, "4", 0),
            ],
            &[],
            Some(("n2", &["c", "d"])),
        ),
        (
            "those that came last",
            &[("n1", "a", 3, "4", 5), ("n2", "b", 3, "4", 9), ("n3", "c", 3, "4", 7)],
            &[],
            Some(("n2", &["b"])),
        ),
        (
            "nobody of the same priority",
            &[("n1", "a", 5, "4", 0), ("n2", "b", 6, "4", 0), ("n3", "c", 7, "4", 0)],
            &[],
            None,
        ),
    ];
    for (what, there, budgets, expected) in table {
        let mut cluster = three();
        for (node, name, priority, cpu, minute) in *there {
            cluster.place(&pod(name, *priority, cpu, *minute, json!({})), node);
        }
        for (app, allowed) in *budgets {
            budget(&mut cluster, app, app, *allowed);
        }
        let expected = expected.map(|(node, pods)| (node.to_owned(), names(pods)));
        assert_eq!(victims(&mut cluster, &pod("p", 5, "2", 0, json!({}))), expected, "{what}");
        assert_eq!(
            victims(&mut cluster, &pod("p", 5, "2", 0, json!({}))),
            expected,
            "{what}: nothing changed by it"
        );
    }
}

#[test]
fn the_fewest_pods_go() {
    let mut cluster = three();
    for (node, name, cpu) in [("n1", "a", "2"), ("n1", "b", "2"), ("n2", "c", "4"), ("n3", "x", "4")] {
        cluster.place(&pod(name, if name == "x" { 9 } else { 1 }, cpu, 0, json!({})), node);
    }
    let expected = Some(("n2".to_owned(), names(&["c"])));
    assert_eq!(victims(&mut cluster, &pod("p", 5, "4", 0, json!({}))), expected);
}

#[test]
fn pods_go_that_keep_another_away_by_a_rule() {
    let keeps_off = |app: &str| {
        let term = json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}]);
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
    };
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
    let spread = json!({"labels": {"app": "a"}, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]});
    for (what, there, wish) in [
        ("its own anti-affinity", json!({}), keeps_off("a")),
        ("another's anti-affinity", keeps_off("p"), json!({})),
        ("a port", port.clone(), port),
        ("spread", json!({}), spread),
    ] {
        let mut cluster = Cluster::default();
        node(&mut cluster, "n1", json!({}));
        cluster.place(&pod("b", 1, "1", 0, json!({})), "n1");
        cluster.place(&pod("a", 1, "1", 0, there), "n1");
        if what == "spread" {
            // A domain without pods that the pod can't be in.
            node(&mut cluster, "n2", json!({}));
            cluster.place(&pod("x", 9, "4", 0, json!({})), "n2");
        }
        let expected = Some(("n1".to_owned(), names(&["a"])));
        assert_eq!(victims(&mut cluster, &pod("p", 5, "1", 0, wish)), expected, "{what}");
    }
}

#[test]
fn where_nobody_goes_the_reason_is_said() {
    let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let mut cluster = three();
    node(&mut cluster, "n3", tainted);
    cluster.place(&pod("low", 1, "1", 0, json!({})), "n1");
    cluster.place(&pod("high", 9, "3", 0, json!({})), "n1");
    cluster.place(&pod("top", 9, "4", 0, json!({})), "n2");
    for (cpu, extra, expected) in [
        (
            "4",
            json!({}),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: \
             0/3 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling.",
        ),
        (
            "5",
            json!({}),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: \
             0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            "4",
            json!({"preemptionPolicy": "Never"}),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: \
             not eligible due to preemptionPolicy=Never.",
        ),
        // Somebody goes: that is said by the Events of those.
        ("1", json!({}), "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu."),
    ] {
        let why = cluster.schedule(&pod("p", 5, cpu, 0, extra)).unwrap_err();
        assert_eq!(why.to_string(), expected);
    }
    let below = cluster.schedule(&pod("p", 0, "4", 0, json!({}))).unwrap_err().to_string();
    let expected = "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, \
                    2 No preemption victims found for incoming pod.";
    assert!(below.ends_with(expected), "{below}");
}

#[test]
fn a_nomination_keeps_the_room_from_pods_that_are_not_more_important() {
    let mut cluster = Cluster::default();
    node(&mut cluster, "n1", json!({}));
    let nominee = pod("p", 5, "3", 0, json!({}));
    cluster.nominate(&nominee, Some("n1"));
    for (priority, has_room) in [(4, false), (5, false), (6, true)] {
        let place = cluster.schedule(&pod("other", priority, "2", 0, json!({})));
        assert_eq!(place.is_ok(), has_room, "{priority}");
        assert!(cluster.schedule(&pod("small", priority, "1", 0, json!({}))).is_ok());
    }
    assert_eq!(cluster.schedule(&nominee).as_deref(), Ok("n1"), "its own room is not in its way");
    node(&mut cluster, "n0", json!({}));
    assert_eq!(cluster.schedule(&nominee).as_deref(), Ok("n1"), "it takes the place that was made for it");
    cluster.place(&nominee, "n1");
    cluster.remove(&nominee);
    assert!(cluster.schedule(&pod("other", 4, "4", 0, json!({}))).is_ok(), "nothing is left of it");
}

#[test]
fn those_that_are_on_their_way_out_are_waited_for() {
    let mut cluster = Cluster::default();
    node(&mut cluster, "n1", json!({}));
    cluster.place(&pod("a", 1, "4", 0, json!({})), "n1");
    cluster.place(&pod("b", 2, "0", 0, json!({})), "n1");
    let nominee = pod("p", 5, "3", 0, json!({}));
    assert_eq!(victims(&mut cluster, &nominee), Some(("n1".to_owned(), names(&["a"]))));
    cluster.nominate(&nominee, Some("n1"));
    let target = json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    let leaving = json!({"deletionTimestamp": "2026-01-01T01:00:00Z", "conditions": target});
    let leaving = pod("a", 1, "4", 0, leaving);
    cluster.place(&leaving, "n1");
    let why = cluster.schedule(&nominee).unwrap_err();
    assert_eq!(
        why.to_string(),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the \
         nominated node."
    );
    cluster.remove(&leaving);
    assert_eq!(cluster.schedule(&nominee).as_deref(), Ok("n1"));
}
