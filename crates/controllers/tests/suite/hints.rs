//! Whose traffic endpoints are for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

/// Two zones of one host each, and a service with pods on these hosts.
async fn zones(spec: Value, annotations: Value, pods: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    for (node, zone) in [("n1", "east"), ("n2", "west")] {
        zone_of(&cluster, node, zone.into()).await;
    }
    cluster
        .create(json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "s", "namespace": "default", "annotations": annotations}, "spec": spec,
        }))
        .await;
    for (number, node) in pods.iter().enumerate() {
        cluster
            .create(json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": format!("p{number}"), "namespace": "default", "labels": {"app": "a"}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c"}]},
            }))
            .await;
    }
    cluster.settle().await;
    cluster
}

async fn zone_of(cluster: &Cluster, node: &str, zone: Value) {
    let label = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    cluster.patch("v1", "Node", "", node, "", label).await.unwrap();
}

/// For each pod the zones and nodes that it is for.
fn hints(cluster: &Cluster) -> BTreeMap<String, String> {
    let of = |endpoint: &Endpoint| {
        let hints = endpoint.hints.clone().unwrap_or_default();
        let zones = hints.for_zones.into_iter().flatten().map(|zone| zone.name);
        let nodes = hints.for_nodes.into_iter().flatten().map(|node| node.name);
        (endpoint.target_ref.clone().unwrap().name.unwrap(), zones.chain(nodes).collect::<Vec<_>>().join(" "))
    };
    let slices = cluster.list::<EndpointSlice>();
    slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).map(of).collect()
}

fn expected(list: &[&str]) -> BTreeMap<String, String> {
    list.iter().enumerate().map(|(n, hint)| (format!("p{n}"), (*hint).to_owned())).collect()
}

fn spec(more: Value) -> Value {
    let mut spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn traffic_may_be_kept_near() {
    for (wanted, hint) in [
        ("PreferClose", ["east", "west"]),
        ("PreferSameZone", ["east", "west"]),
        ("PreferSameNode", ["east n1", "west n2"]),
    ] {
        let spec = spec(json!({"trafficDistribution": wanted}));
        let mut cluster = zones(spec, json!({}), &["n1", "n2"]).await;
        assert_eq!(hints(&cluster), expected(&hint), "{wanted}");
        zone_of(&cluster, "n2", "south".into()).await;
        cluster.settle().await;
        assert_eq!(hints(&cluster)["p1"], hint[1].replace("west", "south"), "it follows its node");
        let nowhere = json!({"spec": {"trafficDistribution": null}});
        cluster.patch("v1", "Service", "default", "s", "", nowhere).await.unwrap();
        cluster.settle().await;
        assert_eq!(hints(&cluster), expected(&["", ""]));
    }
}

#[tokio::test]
async fn zones_get_endpoints_for_what_they_have() {
    let auto = json!({"service.kubernetes.io/topology-mode": "Auto"});
    // The annotation counts before the field.
    let spec = spec(json!({"trafficDistribution": "PreferSameNode"}));
    let mut cluster = zones(spec, auto, &["n1", "n1", "n1", "n1"]).await;
    assert_eq!(hints(&cluster), expected(&["west", "west", "east", "east"]));
    let enabled = "Topology Aware Hints has been enabled, addressType: IPv4";
    assert_eq!(cluster.told("s", "TopologyAwareHintsEnabled").last().unwrap(), enabled);
    // What a node has changes its zone's part.
    let more = json!({"status": {"allocatable": {"cpu": "12"}}});
    cluster.patch("v1", "Node", "", "n1", "status", more).await.unwrap();
    cluster.settle().await;
    assert_eq!(hints(&cluster), expected(&["west", "east", "east", "east"]));
    // Without a zone nobody knows.
    zone_of(&cluster, "n2", Value::Null).await;
    cluster.settle().await;
    assert_eq!(hints(&cluster), expected(&["", "", "", ""]));
    let why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes, \
               addressType: IPv4";
    assert_eq!(cluster.told("s", "TopologyAwareHintsDisabled").last().unwrap(), why);
}
