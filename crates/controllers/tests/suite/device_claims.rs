//! Claims of devices are made for pods, get devices with them, and give them back.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use objects::Delete;
use serde_json::{Value, json};

const GROUP: &str = "resource.k8s.io/v1";

/// A host with two devices, and a class that means them.
async fn cluster() -> Cluster {
    let cluster = Cluster::new(&["n1"]).await;
    cluster
        .create(json!({"kind": "DeviceClass", "apiVersion": GROUP, "metadata": {"name": "any"}, "spec":
            {"selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}]}}))
        .await;
    let pool = json!({"name": "n1", "generation": 1, "resourceSliceCount": 1});
    cluster
        .create(json!({"kind": "ResourceSlice", "apiVersion": GROUP, "metadata": {"name": "n1"}, "spec":
            {"driver": "d.example.com", "nodeName": "n1", "pool": pool, "devices": [{"name": "a"}, {"name": "b"}]}}))
        .await;
    cluster
}

fn asks() -> Value {
    json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "any"}}]}})
}

async fn template(cluster: &Cluster, name: &str) {
    let spec = json!({"metadata": {"labels": {"of": name}}, "spec": asks()});
    cluster
        .create(json!({"kind": "ResourceClaimTemplate", "apiVersion": GROUP,
            "metadata": {"name": name, "namespace": "default"}, "spec": spec}))
        .await;
}

async fn pod(cluster: &Cluster, name: &str, claim: Value) {
    let mut claim = claim;
    claim["name"] = json!("gpu");
    let container = json!({"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}});
    cluster
        .create(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
            "spec": {"restartPolicy": "Never", "containers": [container], "resourceClaims": [claim]}}))
        .await;
}

/// Lets everybody work, those too that rest after they found no place.
async fn settle(cluster: &mut Cluster) {
    for _ in 0..2 {
        cluster.settle().await;
        cluster.pass(Duration::from_secs(10));
    }
    cluster.settle().await;
}

/// Each claim's name as far as it is given, its device, and the pods that use it.
fn claims(cluster: &Cluster) -> Vec<(String, Option<String>, Vec<String>)> {
    let all = cluster.list::<ResourceClaim>();
    let mut all: Vec<_> = all
        .iter()
        .map(|claim| {
            let name = claim.metadata.generate_name.clone().or(claim.metadata.name.clone()).unwrap();
            let status = claim.status.clone().unwrap_or_default();
            let results = status.allocation.and_then(|allocation| allocation.devices?.results);
            let device = results.map(|results| results[0].device.clone());
            let users = status.reserved_for.into_iter().flatten().map(|user| user.name);
            (name, device, users.collect())
        })
        .collect();
    all.sort();
    all
}

fn is(name: &str, device: Option<&str>, users: &[&str]) -> (String, Option<String>, Vec<String>) {
    (name.into(), device.map(Into::into), users.iter().map(|user| (*user).into()).collect())
}

#[tokio::test]
async fn a_claim_by_template_lives_with_its_pod() {
    let mut cluster = cluster().await;
    pod(&cluster, "p", json!({"resourceClaimTemplateName": "t"})).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), []);
    let why = "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found";
    assert_eq!(cluster.told("p", "FailedResourceClaimCreation").last().unwrap(), why);

    template(&cluster, "t").await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), [is("p-gpu-", Some("a"), &["p"])]);
    let claim = cluster.list::<ResourceClaim>().remove(0);
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["of"], "t");
    let annotations = claim.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["resource.kubernetes.io/pod-claim-name"], "gpu");
    let placed: Pod = cluster.get("default", "p").unwrap();
    assert_eq!(placed.spec.unwrap().node_name.as_deref(), Some("n1"));
    let made = placed.status.unwrap().resource_claim_statuses.unwrap();
    assert_eq!((made.len(), &made[0].resource_claim_name), (1, &claim.metadata.name));

    // A pod that has ended gives its device back.
    cluster.end("default", "p", 0).await;
    cluster.settle().await;
    assert_eq!(claims(&cluster), []);
}

#[tokio::test]
async fn a_claim_of_several_pods_keeps_its_device_until_the_last_one_ends() {
    let mut cluster = cluster().await;
    cluster
        .create(json!({"kind": "ResourceClaim", "apiVersion": GROUP,
            "metadata": {"name": "shared", "namespace": "default"}, "spec": asks()}))
        .await;
    settle(&mut cluster).await;
    assert_eq!(claims(&cluster), [is("shared", None, &[])]);
    for name in ["p", "q"] {
        pod(&cluster, name, json!({"resourceClaimName": "shared"})).await;
    }
    settle(&mut cluster).await;
    assert_eq!(claims(&cluster), [is("shared", Some("a"), &["p", "q"])]);
    let now = || Delete { grace_seconds: Some(0), ..Delete::default() };
    cluster.delete("v1", "Pod", "default", "p", now()).await;
    settle(&mut cluster).await;
    assert_eq!(claims(&cluster), [is("shared", Some("a"), &["q"])]);

    // As long as it is used, it stays.
    cluster.delete(GROUP, "ResourceClaim", "default", "shared", Delete::default()).await;
    settle(&mut cluster).await;
    assert_eq!(claims(&cluster), [is("shared", Some("a"), &["q"])]);
    cluster.delete("v1", "Pod", "default", "q", now()).await;
    settle(&mut cluster).await;
    assert_eq!(claims(&cluster), []);
}

#[tokio::test]
async fn no_device_is_two_claims_and_who_waits_gets_the_next_one() {
    let mut cluster = cluster().await;
    template(&cluster, "t").await;
    for name in ["p", "q", "r"] {
        pod(&cluster, name, json!({"resourceClaimTemplateName": "t"})).await;
    }
    settle(&mut cluster).await;
    let devices = |cluster: &Cluster| {
        let mut devices: Vec<_> = claims(cluster).into_iter().map(|(_, device, _)| device).collect();
        devices.sort();
        devices
    };
    assert_eq!(devices(&cluster), [None, Some("a".into()), Some("b".into())]);
    let waits = claims(&cluster).into_iter().find(|(_, device, _)| device.is_none()).unwrap().0;
    let runs = ["p", "q", "r"].into_iter().find(|name| !waits.starts_with(name)).unwrap();
    cluster.end("default", runs, 1).await;
    settle(&mut cluster).await;
    assert_eq!(devices(&cluster), [Some("a".into()), Some("b".into())]);
}
