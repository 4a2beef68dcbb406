//! What the agent tells of itself: its metrics, and how it is configured.

use figures::{family, sample};
use serde_json::{Value, json};

use crate::pods::PodHost;

/// Metrics, as Prometheus reads them; named as the kubelet's.
pub(crate) fn metrics(host: &PodHost) -> String {
    let (containers, pods) = host.running.count();
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, labels: &str, value: usize| {
        family(&mut text, name, "gauge", help);
        sample(&mut text, name, labels, value);
    };
    let node = format!("node=\"{}\"", host.name);
    gauge("kubelet_node_name", "The node's name. The count is always 1.", &node, 1);
    gauge("kubelet_running_pods", "Number of pods that have a running container.", "", pods);
    let state = "container_state=\"running\"";
    gauge("kubelet_running_containers", "Number of containers currently running.", state, containers);
    text
}

/// The configuration, in the kubelet's words as far as it has them.
pub(crate) fn configuration(host: &PodHost) -> Value {
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false}},
        "clusterDNS": host.cluster_dns,
        "clusterDomain": dns::DOMAIN,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "rotateCertificates": false,
        "shutdownGracePeriod": if host.shutdown.is_empty() { "2s" } else { "0s" },
        "shutdownGracePeriodByPodPriority": host.shutdown.iter().map(|group| json!({
            "priority": group.priority,
            "shutdownGracePeriodSeconds": group.grace.as_secs(),
        })).collect::<Vec<_>>(),
        "address": host.address.to_string(),
    }})
}
