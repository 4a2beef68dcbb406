//! What many pods take in the memory of a host beside the store: of controllers and scheduler together, counted, byte by byte, by
//! the allocator.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use controllers::View;
use objects::{Pod, Pool, Table};
use scheduler::Waiting;
use serde_json::{Value, json};
use store::{State, Txn};

#[global_allocator]
static ALLOCATOR: testing::CountingAllocator = testing::CountingAllocator::new();

const PODS: usize = 2000;
/// Pods of one Deployment: few, so that what their ReplicaSet and Deployment take shows too.
const A_DEPLOYMENT: usize = 10;

fn uid(kind: u32, number: usize) -> String {
    format!("{kind:08x}-1234-4abc-9abc-{number:012x}")
}

fn name(number: usize) -> String {
    format!("load-{:05}", number / A_DEPLOYMENT)
}

fn labels(number: usize, hash: bool) -> Value {
    let mut labels = json!({"app.kubernetes.io/name": name(number), "app.kubernetes.io/part-of": "preload"});
    if hash {
        labels["pod-template-hash"] = "6d4cf56db6".into();
    }
    labels
}

fn metadata(kind: u32, number: usize, name: &str, owner: Option<(&str, &str, u32, String)>) -> Value {
    let owners = owner.map(|(api_version, kind, uids, name)| {
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid(uids, number / A_DEPLOYMENT),
            "controller": true, "blockOwnerDeletion": true}])
    });
    json!({
        "name": name, "namespace": format!("load-{:02}", number / A_DEPLOYMENT % 20), "uid": uid(kind, number),
        "creationTimestamp": "2026-11-29T15:04:05Z", "generation": 1, "labels": labels(number, kind != 3),
        "ownerReferences": owners,
        "managedFields": [{"manager": "test", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {}}}}],
    })
}

fn spec() -> Value {
    json!({
        "containers": [{
            "name": "server", "image": "registry.example/shop/server:1.27.4",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        }],
        "schedulerName": "default-scheduler", "restartPolicy": "Always", "priority": 0,
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
    })
}

/// A pod that serves on one of a hundred nodes.
fn pod(number: usize) -> Value {
    let set = format!("{}-6d4cf56db6", name(number));
    let mut spec = spec();
    spec["nodeName"] = format!("node-{:03}", number % 100).into();
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-11-29T15:04:09Z"});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let ip = format!("10.244.{}.{}", number / 250, 1 + number % 250);
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": metadata(1, number, &format!("{set}-{number:05}"), Some(("apps/v1", "ReplicaSet", 2, set.clone()))),
        "spec": spec,
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": conditions,
            "containerStatuses": [{"name": "server", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-29T15:04:08Z"}}}],
        },
    })
}

fn owner(kind: &str, number: usize) -> (String, Value) {
    let set = kind == "ReplicaSet";
    let template = json!({"metadata": {"labels": labels(number, set)}, "spec": spec()});
    let (uids, name, owner) = match set {
        true => (2, format!("{}-6d4cf56db6", name(number)), Some(("apps/v1", "Deployment", 3, name(number)))),
        false => (3, name(number), None),
    };
    let mut metadata = metadata(uids, number, &name, owner);
    metadata["uid"] = uid(uids, number / A_DEPLOYMENT).into();
    metadata["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    let object = json!({
        "kind": kind, "apiVersion": "apps/v1", "metadata": metadata,
        "spec": {"replicas": A_DEPLOYMENT, "selector": {"matchLabels": labels(number, set)}, "template": template},
        "status": {"replicas": A_DEPLOYMENT, "readyReplicas": A_DEPLOYMENT, "availableReplicas": A_DEPLOYMENT, "observedGeneration": 1},
    });
    (name, object)
}

fn state() -> State {
    let mut state = State::default();
    let mut put = |group: &str, plural: &str, name: &str, object: Value| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap().to_owned();
        state.apply(&Txn::put(objects::key(group, plural, &namespace, name), object.to_string())).unwrap();
    };
    for number in 0..PODS {
        let pod = pod(number);
        put("", "pods", pod["metadata"]["name"].as_str().unwrap(), pod.clone());
        if number % A_DEPLOYMENT == 0 {
            for (kind, plural) in [("ReplicaSet", "replicasets"), ("Deployment", "deployments")] {
                let (name, object) = owner(kind, number);
                put("apps", plural, &name, object);
            }
        }
    }
    state
}

#[test]
fn a_pod_takes_little_beside_the_store() {
    let per_pod = |since: isize| (ALLOCATOR.live() - since) / isize::try_from(PODS).unwrap();
    let state = Arc::new(state());
    // What is made once, however many pods there are.
    drop(View::load(state.clone(), &Pool::default()));

    let pool = Pool::default();
    let start = ALLOCATOR.live();
    let table: Table<Pod> = Table::load_shared(&state, &pool);
    let alone = per_pod(start);
    let view = View::load(state.clone(), &pool);
    let controllers = per_pod(start) - alone;
    let waiting = Waiting::load(state.clone(), &pool);
    let scheduler = per_pod(start) - alone - controllers;

    println!(
        "a pod takes {alone} bytes, {controllers} more for controllers and {scheduler} for the scheduler"
    );
    assert_eq!(table.len(), PODS);
    assert!(
        alone < 1200 && controllers < 1200 && scheduler < 450,
        "{alone}, {controllers}, {scheduler} bytes a pod"
    );
    drop((view, waiting));
}
