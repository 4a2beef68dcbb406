//! Which pods stand behind a service, and the slices and Endpoints that say so.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use controllers::Key;

use crate::cluster::Cluster;
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
    for at in 0..201 {
        pod(&mut cluster, &format!("p{at}"), json!([]), Some(true)).await;
    }
    cluster.settle().await;
    let before = slices(&cluster);
    let mut sizes: Vec<_> = before.iter().map(|s| s.endpoints.iter().flatten().count()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 100, 100]);

    // Only the slice that it is in is written for a pod.
    let failed = json!({"status": {"conditions": [cluster.condition("Ready", "False")]}});
    cluster.patch("v1", "Pod", "default", "p7", "status", failed).await.unwrap();
    cluster.settle().await;
    let after = slices(&cluster);
    let written = before.iter().zip(&after).filter(|(before, after)| {
        assert_eq!(before.metadata.name, after.metadata.name);
        before.metadata.resource_version != after.metadata.resource_version
    });
    assert_eq!(written.count(), 1);
    // A look at a service costs what it has, and so do the pauses between two.
    let key = Key::of("endpoints", "default", "s").unwrap();
    assert_eq!(cluster.pauses[&key], Duration::from_micros(20) * 201);
}

fn mirrored(cluster: &Cluster) -> Vec<std::sync::Arc<EndpointSlice>> {
    let mut slices = slices(cluster);
    slices.retain(|slice| {
        slice.metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"]
            == "endpointslicemirroring-controller.k8s.io"
    });
    slices
}

async fn endpoints(cluster: &Cluster, metadata: Value, subsets: Value) {
    let mut all = json!({"name": "s", "namespace": "default"});
    all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    cluster
        .create(json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": all, "subsets": subsets}))
        .await;
}

#[tokio::test]
async fn endpoints_that_are_made_by_hand_become_slices() {
    let mut cluster = Cluster::new(&[]).await;
    service(&cluster, json!({"ports": [{"port": 80, "targetPort": 8099}]})).await;
    let metadata = json!({
        "labels": {"mine": "x"},
        "annotations": {"note": "n", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    });
    let subset = |ip: &str| json!({"addresses": [{"ip": ip}], "ports": [{"port": 8099}]});
    let both = json!({
        "addresses": [{"ip": "10.1.0.1", "hostname": "h", "nodeName": "n9",
            "targetRef": {"kind": "Pod", "name": "p", "namespace": "default"}}, {"ip": "fd00::1"}],
        "notReadyAddresses": [{"ip": "10.1.0.2"}], "ports": [{"name": "web", "port": 8099, "appProtocol": "h2c"}],
    });
    endpoints(&cluster, metadata, json!([both, subset("10.1.0.3")])).await;
    cluster.settle().await;
    let slices = mirrored(&cluster);
    assert_eq!(slices.len(), 3, "one for each family and list of ports: {slices:?}");
    for slice in &slices {
        let metadata = &slice.metadata;
        assert!(metadata.name.as_ref().unwrap().starts_with("s-"));
        let labels = metadata.labels.as_ref().unwrap();
        assert_eq!((labels["kubernetes.io/service-name"].as_str(), labels["mine"].as_str()), ("s", "x"));
        let annotations = metadata.annotations.as_ref().unwrap();
        assert_eq!(
            annotations.keys().collect::<Vec<_>>(),
            ["note"],
            "what is said of the Endpoints alone stays there"
        );
        let owner = &metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("Endpoints", Some(true)));
    }
    let web = slices.iter().find(|slice| {
        slice.address_type == "IPv4" && slice.ports.as_ref().unwrap()[0].name.as_deref() == Some("web")
    });
    let web = web.unwrap();
    let port = &web.ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.port, port.protocol.as_deref(), port.app_protocol.as_deref()),
        (Some(8099), Some("TCP"), Some("h2c"))
    );
    let listed: Vec<_> = web.endpoints.iter().flatten().collect();
    let first = listed.iter().find(|e| e.addresses == ["10.1.0.1"]).unwrap();
    assert_eq!((first.hostname.as_deref(), first.node_name.as_deref()), (Some("h"), Some("n9")));
    assert_eq!(first.target_ref.as_ref().unwrap().name.as_deref(), Some("p"));
    assert_eq!(first.conditions.as_ref().unwrap().ready, Some(true));
    let second = listed.iter().find(|e| e.addresses == ["10.1.0.2"]).unwrap();
    assert_eq!(second.conditions.as_ref().unwrap().ready, Some(false));

    // Changes follow, in the slices that are there.
    let uid = web.metadata.uid.clone();
    let patch = json!({"metadata": {"labels": {"mine": "y"}, "annotations": {"note": null}},
        "subsets": [{"addresses": [{"ip": "10.1.0.9"}], "ports": [{"name": "web", "port": 8099, "appProtocol": "h2c"}]}]});
    cluster.patch("v1", "Endpoints", "default", "s", "", patch).await.unwrap();
    cluster.settle().await;
    let slices = mirrored(&cluster);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].metadata.uid, uid);
    assert_eq!(slices[0].endpoints.as_ref().unwrap()[0].addresses, ["10.1.0.9"]);
    assert_eq!(slices[0].metadata.labels.as_ref().unwrap()["mine"], "y");
    assert_eq!(slices[0].metadata.annotations.clone().unwrap_or_default().len(), 0);

    let name = slices[0].metadata.name.clone().unwrap();
    cluster.delete("discovery.k8s.io/v1", "EndpointSlice", "default", &name, Delete::default()).await;
    cluster.settle().await;
    assert_eq!(mirrored(&cluster).len(), 1, "a slice that somebody deletes comes back");
    cluster.delete("v1", "Service", "default", "s", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(mirrored(&cluster).len(), 0);
    assert!(cluster.get::<Endpoints>("default", "s").is_none(), "as upstream, no matter who made them");
}

#[tokio::test]
async fn only_endpoints_that_want_it_are_mirrored() {
    let subsets = json!([{"addresses": [{"ip": "10.1.0.1"}], "ports": [{"port": 1}]}]);
    let skip = json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}});
    let other = json!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "false"}});
    let elects = json!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}});
    let selector = json!({"selector": {"app": "a"}, "ports": [{"port": 80}]});
    let plain = json!({"ports": [{"port": 80}]});
    for (spec, metadata, count) in [
        (&plain, &skip, 0),
        (&plain, &elects, 0),
        (&selector, &json!({}), 0),
        (&plain, &other, 1),
        (&plain, &json!({}), 1),
    ] {
        let mut cluster = Cluster::new(&[]).await;
        endpoints(&cluster, metadata.clone(), subsets.clone()).await;
        cluster.settle().await;
        assert_eq!(mirrored(&cluster).len(), 0, "there is no service");
        service(&cluster, spec.clone()).await;
        cluster.settle().await;
        assert_eq!(mirrored(&cluster).len(), count, "{spec} {metadata}");
        if count == 1 {
            let patch = json!({"metadata": skip.clone()});
            cluster.patch("v1", "Endpoints", "default", "s", "", patch).await.unwrap();
            cluster.settle().await;
            assert_eq!(mirrored(&cluster).len(), 0);
            let patch = json!({"metadata": {"labels": null}});
            cluster.patch("v1", "Endpoints", "default", "s", "", patch).await.unwrap();
            cluster.settle().await;
            assert_eq!(mirrored(&cluster).len(), 1);
            cluster.delete("v1", "Endpoints", "default", "s", Delete::default()).await;
            cluster.settle().await;
            assert_eq!(mirrored(&cluster).len(), 0);
        }
    }
}

#[tokio::test]
async fn a_subset_is_mirrored_up_to_a_thousand_addresses() {
    let mut cluster = Cluster::new(&[]).await;
    service(&cluster, json!({"ports": [{"port": 80}]})).await;
    let list: Vec<Value> =
        (0..1005).map(|n| json!({"ip": format!("10.1.{}.{}", n / 250, n % 250 + 1)})).collect();
    endpoints(&cluster, json!({}), json!([{"addresses": list, "ports": [{"port": 1}]}])).await;
    cluster.settle().await;
    let slices = mirrored(&cluster);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].endpoints.as_ref().unwrap().len(), 1000);
    let told = cluster.told("s", "TooManyAddressesToMirror");
    let expected = "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 5 addresses were skipped";
    assert_eq!(told, [expected]);
}
