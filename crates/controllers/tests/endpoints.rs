//! Which pods stand behind a service, and how that is said.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;

use cluster::Cluster;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use objects::Delete;
use serde_json::{Value, json};

async fn pod(cluster: &mut Cluster, name: &str, ports: Value, ready: Option<bool>) {
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "a"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "c", "ports": ports}]},
        }))
        .await;
    if let Some(ready) = ready {
        cluster.start("default", name, ready).await;
    }
}

async fn service(cluster: &Cluster, spec: Value) {
    let metadata = json!({"name": "s", "namespace": "default", "labels": {"team": "x"}});
    cluster.create(json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec})).await;
}

fn slices(cluster: &Cluster) -> Vec<std::sync::Arc<EndpointSlice>> {
    cluster.list::<EndpointSlice>()
}

fn endpoint(cluster: &Cluster, pod: &str) -> Option<Endpoint> {
    let all = slices(cluster);
    let mut endpoints = all.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.find(|e| e.target_ref.as_ref().unwrap().name.as_deref() == Some(pod)).cloned()
}

fn conditions(cluster: &Cluster, pod: &str) -> [Option<bool>; 3] {
    let conditions = endpoint(cluster, pod).unwrap().conditions.unwrap();
    [conditions.ready, conditions.serving, conditions.terminating]
}

#[tokio::test]
async fn a_slice_says_which_pods_serve() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.serving = false;
    service(&cluster, json!({"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8080}]})).await;
    cluster.settle().await;
    let empty = slices(&cluster);
    assert_eq!(empty.len(), 1, "a service without pods has an empty slice");
    let labels = empty[0].metadata.labels.clone().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "s");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["team"], "x", "the service's own labels are on it");

    for (name, ready) in
        [("new", None), ("starting", Some(false)), ("serving", Some(true)), ("leaving", Some(true))]
    {
        pod(&mut cluster, name, json!([]), ready).await;
    }
    cluster.delete("v1", "Pod", "default", "leaving", Delete::default()).await;
    for key in cluster.due() {
        cluster.reconcile(key).await;
    }
    for key in cluster.due() {
        cluster.reconcile(key).await;
    }
    assert!(endpoint(&cluster, "new").is_none(), "it has no address yet");
    assert_eq!(conditions(&cluster, "starting"), [Some(false), Some(false), Some(false)]);
    assert_eq!(conditions(&cluster, "serving"), [Some(true), Some(true), Some(false)]);
    assert_eq!(conditions(&cluster, "leaving"), [Some(false), Some(true), Some(true)]);
    assert_eq!(endpoint(&cluster, "serving").unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(slices(&cluster).len(), 1);
    assert_eq!(slices(&cluster)[0].ports.as_ref().unwrap()[0].port, Some(8080));

    let endpoints: Endpoints = cluster.get("default", "s").unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    let names = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| -> Vec<String> {
        let list = list.iter().flatten();
        list.map(|address| address.target_ref.as_ref().unwrap().name.clone().unwrap()).collect()
    };
    assert_eq!(names(&subset.addresses), ["serving"]);
    assert_eq!(names(&subset.not_ready_addresses), ["starting"]);

    cluster.settle().await;
    cluster.delete("v1", "Service", "default", "s", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(slices(&cluster).len(), 0, "its slices go with the service");
    assert!(cluster.get::<Endpoints>("default", "s").is_none());
}

#[tokio::test]
async fn addresses_of_pods_that_are_not_ready_are_published_where_that_is_asked_for() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.serving = false;
    let spec = json!({"selector": {"app": "a"}, "clusterIP": "None", "publishNotReadyAddresses": true});
    service(&cluster, spec).await;
    pod(&mut cluster, "starting", json!([]), Some(false)).await;
    cluster.settle().await;
    assert_eq!(conditions(&cluster, "starting"), [Some(true), Some(true), Some(false)]);
    let labels = slices(&cluster)[0].metadata.labels.clone().unwrap();
    assert_eq!(labels["service.kubernetes.io/headless"], "");
}

#[tokio::test]
async fn a_named_port_may_be_another_number_in_every_pod() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.serving = false;
    service(&cluster, json!({"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "http"}]})).await;
    let named = |number: u32| json!([{"name": "http", "containerPort": number}]);
    pod(&mut cluster, "a", named(8080), Some(true)).await;
    pod(&mut cluster, "b", named(9090), Some(true)).await;
    pod(&mut cluster, "c", named(8080), Some(true)).await;
    pod(&mut cluster, "none", json!([]), Some(true)).await;
    cluster.settle().await;
    let mut found: Vec<(i32, BTreeSet<String>)> = slices(&cluster)
        .iter()
        .map(|slice| {
            let endpoints = slice.endpoints.iter().flatten();
            let pods = endpoints.map(|e| e.target_ref.as_ref().unwrap().name.clone().unwrap()).collect();
            (slice.ports.as_ref().unwrap()[0].port.unwrap(), pods)
        })
        .collect();
    found.sort();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found, [(8080, set(&["a", "c"])), (9090, set(&["b"]))]);

    cluster.delete("v1", "Pod", "default", "b", Delete { grace_seconds: Some(0), ..Delete::default() }).await;
    cluster.settle().await;
    assert_eq!(slices(&cluster).len(), 1, "a slice that is not needed any more goes");
}

#[tokio::test]
async fn a_service_of_many_pods_is_split() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.serving = false;
    service(&cluster, json!({"selector": {"app": "a"}, "ports": [{"port": 80}]})).await;
    for at in 0..1001 {
        pod(&mut cluster, &format!("p{at}"), json!([]), Some(true)).await;
    }
    cluster.settle().await;
    let mut sizes: Vec<_> = slices(&cluster).iter().map(|s| s.endpoints.iter().flatten().count()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1000]);
}
