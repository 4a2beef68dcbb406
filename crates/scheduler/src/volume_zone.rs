//! Volumes that say by labels in which zone or region they can be used (`plugins/volumezone` upstream), as those of providers do
//! that came before `nodeAffinity`.

use std::collections::BTreeSet;

use objects::{Meta, PersistentVolume};

use crate::node::Node;

/// A label of volumes and nodes, and the one of nodes that took its place.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Where some volumes can be used: each label with the values of which a node must have one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct VolumeZones(Vec<((&'static str, &'static str), BTreeSet<String>)>);

impl VolumeZones {
    /// Takes one more volume in.
    pub fn add(&mut self, volume: &PersistentVolume) {
        let Some(labels) = volume.metadata.labels() else { return };
        for label in LABELS {
            // A volume that is in several zones has their names with two underscores in between; what makes no names says nothing.
            let names = labels.get(label.0).map(|value| value.split("__").map(str::trim));
            let Some(names) = names.filter(|names| names.clone().all(|name| !name.is_empty())) else {
                continue;
            };
            self.0.push((label, names.map(str::to_owned).collect()));
        }
    }

    /// Whether all of them can be used on a node. One that says nothing of zones is taken to be where they are.
    pub fn are_on(&self, node: &Node) -> bool {
        if self.0.is_empty() || LABELS.iter().all(|(label, _)| node.label(label).is_none()) {
            return true;
        }
        self.0.iter().all(|((label, newer), values)| {
            let value = node.label(label).or_else(|| node.label(newer));
            value.is_some_and(|value| values.contains(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_must_be_in_one_of_the_zones_that_a_volume_names() {
        let zone = "topology.kubernetes.io/zone";
        let old = "failure-domain.beta.kubernetes.io/zone";
        let region = "topology.kubernetes.io/region";
        for (volume, node, expected) in [
            (json!({}), json!({zone: "a"}), true),
            (json!({zone: "a"}), json!({zone: "a"}), true),
            (json!({zone: "a"}), json!({zone: "b"}), false),
            (json!({zone: "a__b"}), json!({zone: "b"}), true),
            (json!({zone: "a"}), json!({}), true),
            (json!({zone: "a"}), json!({region: "a"}), false),
            (json!({zone: "a", region: "r"}), json!({zone: "a", region: "s"}), false),
            (json!({old: "a"}), json!({zone: "a"}), true),
            (json!({old: "a"}), json!({zone: "b"}), false),
            (json!({zone: "__"}), json!({zone: "b"}), true),
        ] {
            let of = |labels: &Value| json!({"metadata": {"name": "x", "labels": labels}});
            let mut zones = VolumeZones::default();
            zones.add(&serde_json::from_value(of(&volume)).unwrap());
            let on: Node = serde_json::from_value(of(&node)).unwrap();
            assert_eq!(zones.are_on(&on), expected, "{volume} {node}");
        }
    }
}
