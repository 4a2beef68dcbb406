//! Hosts that come while the others run.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::harness::{Cluster, is_ready, wait_for};

/// Two hosts register, and neither is ever heard: only that which says where it hears heartbeats is missed.
#[tokio::test]
async fn a_host_that_registers_is_listened_for_at_once() {
    let cluster = Cluster::with(1, "auto").await;
    let nodes = Api::<Node>::all(cluster.client().await.unwrap());
    let own = nodes.get("n1").await.unwrap();
    assert_eq!(own.metadata.annotations.unwrap()["holdfast.dev/heartbeats"], "2381");
    let on_loopback = own.spec.unwrap().pod_cidr.unwrap().starts_with("127.");
    for (number, annotations) in [(8, json!({})), (9, json!({"holdfast.dev/heartbeats": "2381"}))] {
        let name = format!("n{number}");
        let (address, pods) = if on_loopback {
            (format!("127.0.{number}.1"), format!("127.{number}.0.0/16"))
        } else {
            (format!("10.73.0.{number}"), format!("10.244.{number}.0/24"))
        };
        let node = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"podCIDR": pods}});
        let node: Node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
    wait_for("the silent host to be not ready", || async {
        let node = nodes.get("n9").await.ok()?;
        (!is_ready(&node)).then_some(())
    })
    .await;
    assert!(is_ready(&nodes.get("n8").await.unwrap()), "nobody expects to hear it");
}
