//! Nodes as they are stored: what this host reads of them, for those who look at hosts by their Nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use store::KeyRange;

/// What counts of a stored Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredNode {
    /// Its internal address.
    pub address: Option<IpAddr>,
    /// The range of its pods.
    pub pods: Option<IpNet>,
    /// Whether it says that it is ready.
    pub is_ready: bool,
    pub annotations: BTreeMap<String, String>,
}

/// All Nodes' keys.
pub fn all() -> KeyRange {
    KeyRange::prefix(objects::kind_prefix("", "nodes"))
}

/// The name of the Node with this key.
pub fn name_of(key: &[u8]) -> Option<String> {
    Some(objects::parse(key)?.name.to_owned())
}

impl StoredNode {
    /// Reads one; what can't be read isn't there.
    pub fn read(value: &[u8]) -> Self {
        let Stored { metadata, spec, status } = serde_json::from_slice(value).unwrap_or_default();
        let internal = status.addresses.iter().flatten().find(|address| address.kind == "InternalIP");
        let annotations = metadata.annotations.unwrap_or_default().into_iter();
        StoredNode {
            address: internal.and_then(|address| address.address.parse().ok()),
            pods: spec.pod_cidr.and_then(|cidr| cidr.parse().ok()).map(|cidr: IpNet| cidr.trunc()),
            is_ready: status
                .conditions
                .iter()
                .flatten()
                .any(|one| one.kind == "Ready" && one.status == "True"),
            annotations: annotations.filter_map(|(key, value)| Some((key, value?))).collect(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Option<BTreeMap<String, Option<String>>>,
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
        let node = StoredNode::read(
            br#"{"metadata":{"annotations":{"a":"1","b":null}},"spec":{"podCIDR":"10.244.2.7/24"},"status":{
                "addresses":[{"type":"Hostname","address":"n2"},{"type":"InternalIP","address":"10.73.0.2"}],
                "conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]}}"#,
        );
        assert_eq!(node.address, Some([10, 73, 0, 2].into()));
        assert_eq!(node.pods, Some("10.244.2.0/24".parse().unwrap()));
        assert!(node.is_ready);
        assert_eq!(node.annotations, [("a".to_owned(), "1".to_owned())].into());
        assert_eq!(StoredNode::read(b"no"), StoredNode::default());
    }
}
