//! `kubectl drain`, `cordon` and `uncordon`: a host is emptied, and no budget is overdrawn.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, ObjectList, WatchEvent, WatchParams};

use crate::harness::{Cluster, web};
use crate::kubectl::{Kubectl, is_installed};

const BUDGET: &str = r#"apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 3
  selector: {matchLabels: {app: web}}
"#;

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap()
}

fn serves(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}

/// Follows the pods from a list on until all that were in it are gone and as many others serve: the least number of them
/// that served at any moment.
async fn least_serving(pods: &Api<Pod>, before: &ObjectList<Pod>) -> usize {
    let mut known: BTreeMap<String, bool> = before.items.iter().map(|pod| (name(pod), serves(pod))).collect();
    let mut least = known.len();
    let version = before.metadata.resource_version.clone().unwrap();
    let params = WatchParams::default().labels("app=web").timeout(60);
    let mut events = Box::pin(pods.watch(&params, &version).await.unwrap());
    while let Some(event) = events.next().await {
        match event.unwrap() {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => known.insert(name(&pod), serves(&pod)),
            WatchEvent::Deleted(pod) => known.remove(&name(&pod)),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(error) => panic!("the pods can't be followed: {error}"),
        };
        let serving = known.values().filter(|serves| **serves).count();
        least = least.min(serving);
        if serving == before.items.len() && before.items.iter().all(|pod| !known.contains_key(&name(pod))) {
            return least;
        }
    }
    panic!("they are not replaced: {known:?}");
}

#[tokio::test]
async fn a_host_is_drained_as_fast_as_the_budget_allows() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");

    kubectl.says("cordon n2", &["node/n2 cordoned"]);
    kubectl.says("cordon n3", &["node/n3 cordoned"]);
    kubectl.says("get nodes", &["SchedulingDisabled"]);
    kubectl.applies(
        &format!("{}---\n{BUDGET}", web(3)),
        &["deployment.apps/web created", "poddisruptionbudget.policy/web created"],
    );
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    let places = "get pods -l app=web -o jsonpath={.items[*].spec.nodeName}";
    assert_eq!(kubectl.says(places, &[]), "n1 n1 n1", "the others take nothing");
    kubectl.says("uncordon n2", &["node/n2 uncordoned"]);
    kubectl.says("uncordon n3", &["node/n3 uncordoned"]);
    kubectl.says_soon("get pdb web -o jsonpath={.status.currentHealthy}/{.status.expectedPods}", "3/3");
    kubectl.says("get pdb web", &["MIN AVAILABLE", "ALLOWED DISRUPTIONS", "3"]);

    // All three have to serve: none may go, however long one asks.
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget";
    kubectl.fails("drain n1 --ignore-daemonsets --timeout=1s", &[refusal]);
    assert_eq!(kubectl.says(places, &[]), "n1 n1 n1");
    kubectl.says("get node n1", &["SchedulingDisabled"]);

    // Two have to serve: they go one by one, each when the one before is replaced.
    kubectl.says(r#"patch pdb web -p {"spec":{"minAvailable":2}}"#, &["patched"]);
    kubectl.says_soon("get pdb web -o jsonpath={.status.disruptionsAllowed}", "1");
    let pods = Api::<Pod>::default_namespaced(cluster.client().await.unwrap());
    let before = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    kubectl.says("drain n1 --ignore-daemonsets --timeout=120s", &["node/n1 drained"]);
    assert!(!kubectl.says(places, &[]).contains("n1"), "nothing is left on it");
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    assert_eq!(least_serving(&pods, &before).await, 2, "one went at a time");
    kubectl.says("wait pdb/web --for=condition=DisruptionAllowed --timeout=60s", &["condition met"]);

    kubectl.says("uncordon n1", &["node/n1 uncordoned"]);
    let nodes = kubectl.says("get nodes", &[]);
    assert!(!nodes.contains("SchedulingDisabled"), "{nodes}");
}
