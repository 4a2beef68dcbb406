//! What of a Node counts for a host that wants to join.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// A Node as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Its internal address.
    pub address: Option<IpAddr>,
    /// The range of its pods.
    pub pods: Option<IpNet>,
    /// Whether it says that it is ready.
    pub is_ready: bool,
}

impl KnownNode {
    /// Reads a stored Node; what can't be read isn't there.
    pub fn read(value: &[u8]) -> Self {
        let stored: Stored = serde_json::from_slice(value).unwrap_or_default();
        let status = stored.status;
        let internal = status.addresses.iter().flatten().find(|address| address.kind == "InternalIP");
        let is_ready =
            status.conditions.iter().flatten().any(|one| one.kind == "Ready" && one.status == "True");
        KnownNode {
            address: internal.and_then(|address| address.address.parse().ok()),
            pods: stored.spec.pod_cidr.and_then(|cidr| cidr.parse().ok()).map(|cidr: IpNet| cidr.trunc()),
            is_ready,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_where_it_is_and_how() {
        let node = KnownNode::read(
            br#"{"spec":{"podCIDR":"10.244.2.7/24"},"status":{
                "addresses":[{"type":"Hostname","address":"n2"},{"type":"InternalIP","address":"10.73.0.2"}],
                "conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]}}"#,
        );
        assert_eq!(node.address, Some([10, 73, 0, 2].into()));
        assert_eq!(node.pods, Some("10.244.2.0/24".parse().unwrap()));
        assert!(node.is_ready);
        assert_eq!(KnownNode::read(b"no"), KnownNode { address: None, pods: None, is_ready: false });
    }
}
