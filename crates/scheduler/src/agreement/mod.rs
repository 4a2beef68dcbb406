//! What is kept up to date agrees with what is worked out anew, whatever happens in between.

mod plain;

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::{Labels, Meta, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::plain::Plain;
use crate::{Cluster, Node, Preemption};

const NODES: u8 = 6;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A pod of a template asks for its place, and takes it.
    Place {
        template: Template,
        name: u8,
    },
    Remove(u8),
    Leave(u8),
    Finish(u8),
    Relabel(u8, u8),
    Node(u8, NodeShape),
    NodeGone(u8),
    Silent(u8),
    Namespace(u8, bool),
}

/// What a pod is like.
#[derive(Debug, Clone)]
struct Template {
    namespace: u8,
    app: u8,
    owned: bool,
    cpu: u16,
    port: bool,
    rule: u8,
    term: u8,
    priority: u8,
}

#[derive(Debug, Clone)]
struct NodeShape {
    zone: u8,
    rack: u8,
    size: u16,
    taint: u8,
    ready: u8,
    cordoned: bool,
}

fn template() -> impl Strategy<Value = Template> {
    (0u8..2, 0u8..3, any::<bool>(), 0u16..900, prop::bool::weighted(0.1), 0u8..14, 0u8..5, 0u8..3).prop_map(
        |(namespace, app, owned, cpu, port, rule, term, priority)| Template {
            namespace,
            app,
            owned,
            cpu,
            port,
            rule,
            term,
            priority,
        },
    )
}

fn node_shape() -> impl Strategy<Value = NodeShape> {
    (0u8..4, 0u8..3, 500u16..6000, 0u8..8, 0u8..10, prop::bool::weighted(0.1)).prop_map(
        |(zone, rack, size, taint, ready, cordoned)| NodeShape { zone, rack, size, taint, ready, cordoned },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (template(), 0u8..24).prop_map(|(template, name)| Step::Place { template, name }),
        2 => (0u8..24).prop_map(Step::Remove),
        1 => (0u8..24).prop_map(Step::Leave),
        1 => (0u8..24).prop_map(Step::Finish),
        1 => (0u8..24, 0u8..3).prop_map(|(name, app)| Step::Relabel(name, app)),
        3 => (0..NODES, node_shape()).prop_map(|(node, shape)| Step::Node(node, shape)),
        1 => (0..NODES).prop_map(Step::NodeGone),
        1 => (0u8..16).prop_map(Step::Silent),
        1 => (0u8..2, any::<bool>()).prop_map(|(namespace, labelled)| Step::Namespace(namespace, labelled)),
    ]
}

impl NodeShape {
    fn node(&self, name: &str) -> Arc<Node> {
        let mut labels = json!({"kubernetes.io/hostname": name, "rack": format!("r{}", self.rack)});
        if self.zone > 0 {
            labels["topology.kubernetes.io/zone"] = format!("z{}", self.zone).into();
        }
        let taints = match self.taint {
            0 => json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]),
            1 => json!([{"key": "soft", "effect": "PreferNoSchedule"}]),
            _ => Value::Null,
        };
        let ready = ["False", "Unknown"].get(usize::from(self.ready)).unwrap_or(&"True");
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints, "unschedulable": self.cordoned},
            "status": {
                "allocatable": {"cpu": format!("{}m", self.size), "memory": "1Gi", "pods": "9"},
                "conditions": [{"type": "Ready", "status": ready}],
            },
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }
}

impl Template {
    fn pod(&self, name: &str) -> Arc<Pod> {
        let key =
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"][usize::from(self.term % 3)];
        let app = format!("a{}", self.term % 3);
        let selector = json!({"matchLabels": {"app": app}});
        let term = match self.term {
            4 => {
                json!({"labelSelector": {}, "namespaceSelector": {"matchLabels": {"team": "x"}}, "topologyKey": key})
            }
            3 => json!({"labelSelector": selector, "matchLabelKeys": ["app"], "topologyKey": key}),
            _ => json!({"labelSelector": selector, "topologyKey": key}),
        };
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 7, "podAffinityTerm": term}]});
        let spread = |when: &str, more: Value| {
            let mut constraint = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector});
            for (field, value) in more.as_object().unwrap() {
                constraint[field] = value.clone();
            }
            json!([constraint])
        };
        let mut spec = json!({"priority": self.priority, "containers": [{
            "name": "c", "resources": {"requests": {"cpu": format!("{}m", self.cpu)}},
            "ports": if self.port { json!([{"containerPort": 1, "hostPort": 80}]) } else { Value::Null },
        }]});
        match self.rule {
            0 => spec["affinity"] = json!({"podAffinity": required}),
            1 | 2 => spec["affinity"] = json!({"podAntiAffinity": required}),
            3 => spec["affinity"] = json!({"podAffinity": preferred}),
            4 => spec["affinity"] = json!({"podAntiAffinity": preferred}),
            5 | 6 => spec["topologySpreadConstraints"] = spread("DoNotSchedule", json!({})),
            7 => spec["topologySpreadConstraints"] = spread("ScheduleAnyway", json!({})),
            8 => spec["topologySpreadConstraints"] = spread("DoNotSchedule", json!({"minDomains": 3})),
            9 => {
                spec["topologySpreadConstraints"] =
                    spread("DoNotSchedule", json!({"nodeTaintsPolicy": "Honor"}))
            }
            10 => spec["nodeSelector"] = json!({"rack": "r1"}),
            11 => spec["tolerations"] = json!([{"operator": "Exists"}]),
            _ => {}
        }
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": app, "controller": true}]);
        let pod = json!({
            "metadata": {
                "name": name, "namespace": format!("ns{}", self.namespace), "uid": name,
                "labels": {"app": format!("a{}", self.app)},
                "ownerReferences": if self.owned { owner } else { Value::Null },
            },
            "spec": spec,
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }
}

/// What there is, as plain lists.
#[derive(Clone, Default)]
struct World {
    nodes: BTreeMap<String, Arc<Node>>,
    pods: BTreeMap<(String, String), (Arc<Pod>, String)>,
    silent: Vec<String>,
    namespaces: BTreeMap<String, Labels>,
}

impl World {
    /// What there would be without some pods.
    fn without(&self, gone: &[Arc<Pod>]) -> World {
        let mut rest = self.clone();
        rest.pods.retain(|_, (pod, _)| {
            !gone.iter().any(|gone| {
                gone.metadata.name == pod.metadata.name && gone.metadata.namespace == pod.metadata.namespace
            })
        });
        rest
    }

    fn change(&mut self, name: u8, cluster: &mut Cluster, change: impl Fn(&mut Pod)) {
        let keys: Vec<_> = self.pods.keys().filter(|(_, pod)| *pod == name.to_string()).cloned().collect();
        for key in keys {
            let (pod, node) = self.pods.get_mut(&key).unwrap();
            change(Arc::make_mut(pod));
            cluster.place(pod, node);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_agrees_with_what_is_worked_out_anew(
        shapes in prop::collection::vec(node_shape(), 1..usize::from(NODES)),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut world, mut cluster) = (World::default(), Cluster::default());
        let nodes = shapes.into_iter().enumerate().map(|(at, shape)| Step::Node(at as u8, shape));
        for step in nodes.chain(steps) {
            match step {
                Step::Place { template, name } => {
                    let pod = template.pod(&name.to_string());
                    let key = (pod.metadata.namespace().to_owned(), name.to_string());
                    if world.pods.contains_key(&key) {
                        continue;
                    }
                    let expected = Plain::new(&world, &pod).decide();
                    let place = cluster.schedule(&pod);
                    match &place {
                        Ok(node) => prop_assert_eq!(Ok(node), expected.as_ref(), "{:?}", template),
                        Err(why) => {
                            prop_assert_eq!(Err(&why.reasons), expected.as_ref(), "{:?}", template);
                            prop_assert_eq!(why.nodes, world.nodes.len());
                            if let Preemption::Possible(victims) = &why.preemption {
                                let rest = world.without(&victims.pods);
                                let expected = Plain::new(&rest, &pod).is_open(&victims.node);
                                prop_assert!(expected, "they go for it: {:?}", template);
                            }
                        }
                    }
                    if let Ok(node) = place {
                        cluster.place(&pod, &node);
                        world.pods.insert(key, (pod, node));
                    }
                }
                Step::Remove(name) => {
                    world.pods.retain(|(_, pod), (object, _)| {
                        let stays = *pod != name.to_string();
                        if !stays {
                            cluster.remove(object);
                        }
                        stays
                    });
                }
                Step::Leave(name) => world.change(name, &mut cluster, |pod| {
                    let time = serde_json::from_value(json!("2024-01-01T00:00:00Z")).unwrap();
                    pod.metadata.deletion_timestamp = Some(time);
                }),
                Step::Finish(name) => world.change(name, &mut cluster, |pod| {
                    pod.status = Some(objects::PodStatus { phase: Some("Succeeded"), ..Default::default() });
                }),
                Step::Relabel(name, app) => world.change(name, &mut cluster, |pod| {
                    pod.metadata.labels = Some(Arc::new(Labels::from([("app".to_owned(), format!("a{app}"))])));
                }),
                Step::Node(at, shape) => {
                    let name = format!("n{at}");
                    let node = shape.node(&name);
                    cluster.set_node(&name, Some(node.clone()));
                    world.nodes.insert(name, node);
                }
                Step::NodeGone(at) => {
                    let name = format!("n{at}");
                    cluster.set_node(&name, None);
                    world.nodes.remove(&name);
                }
                Step::Silent(bits) => {
                    let silent = (0..NODES).filter(|at| bits >> at & 1 == 1 && bits < 8);
                    world.silent = silent.map(|at| format!("n{at}")).collect();
                    cluster.set_silent(world.silent.iter());
                }
                Step::Namespace(namespace, labelled) => {
                    let labels = labelled.then(|| Labels::from([("team".to_owned(), "x".to_owned())]));
                    let name = format!("ns{namespace}");
                    cluster.set_namespace(&name, labels.clone());
                    match labels {
                        Some(labels) => world.namespaces.insert(name, labels),
                        None => world.namespaces.remove(&name),
                    };
                }
            }
        }
    }
}
