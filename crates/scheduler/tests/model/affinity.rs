//! Affinities: to nodes by their labels, to and against other pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use objects::{Pod, PodSpec, selects};

use super::cluster::{Cluster, Host, Labels, is_leaving, namespace};

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_deref()
}

/// Whether a node has what the pod's node selector and required node affinity ask for.
pub fn wants_node(spec: &PodSpec, host: &Host) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| host.label(k) == Some(v));
    let affinity = spec.affinity.as_deref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| meets_any(selector, host))
}

fn meets_any(selector: &NodeSelector, host: &Host) -> bool {
    selector.node_selector_terms.iter().any(|term| meets(term, host))
}

fn meets(term: &NodeSelectorTerm, host: &Host) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    // A term without any requirement means no node.
    let is_empty = labels.clone().next().is_none() && fields.clone().next().is_none();
    !is_empty
        && labels.into_iter().all(|requirement| holds(requirement, host.label(&requirement.key)))
        && fields.into_iter().all(|requirement| {
            let value = (requirement.key == "metadata.name").then(|| host.name());
            holds(requirement, value)
        })
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|other| other == value)),
        "NotIn" => !value.is_some_and(|value| values.iter().any(|other| other == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(value, bound)| value > bound),
        "Lt" => number().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The weight of the preferred node affinities that a node meets.
pub fn preferred_node(pod: &Pod, host: &Host) -> i64 {
    let affinity = affinity(pod).and_then(|affinity| affinity.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = terms.into_iter().flatten().filter(|term| meets(&term.preference, host));
    met.map(|term| i64::from(term.weight)).sum()
}

/// What other pods mean for the placement of one, worked out once for all nodes.
pub struct Neighbours {
    /// For each required affinity: its topology key, and the values where a matching pod is; nothing if the
    /// pod may be the first of its kind.
    near: Vec<(String, Option<BTreeSet<String>>)>,
    /// Topologies that the pod keeps away from.
    apart: BTreeSet<(String, String)>,
    /// Topologies that pods already there keep the pod away from.
    refused: BTreeSet<(String, String)>,
    /// Preferred topologies with their weights.
    preferred: Vec<(String, String, i64)>,
}

impl Neighbours {
    pub fn of(pod: &Pod, cluster: &Cluster) -> Self {
        let (near, apart) = (affinity(pod).and_then(|a| a.pod_affinity.as_ref()), anti_affinity(pod));
        let near = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let near = near.into_iter().flatten().map(|term| {
            let places: BTreeSet<String> = topologies(term, pod, cluster).map(|(_, value)| value).collect();
            let first = places.is_empty() && means(term, pod, pod, cluster);
            (term.topology_key.clone(), (!first).then_some(places))
        });
        let apart_terms = apart.into_iter().flatten();
        Neighbours {
            near: near.collect(),
            apart: apart_terms.flat_map(|term| topologies(term, pod, cluster)).collect(),
            refused: refused(pod, cluster),
            preferred: preferred(pod, cluster),
        }
    }

    pub fn meets_affinity(&self, host: &Host) -> bool {
        self.near.iter().all(|(key, places)| {
            let value = host.label(key);
            value.is_some_and(|value| places.as_ref().is_none_or(|places| places.contains(value)))
        })
    }

    pub fn meets_anti_affinity(&self, host: &Host) -> bool {
        !is_in(host, &self.apart)
    }

    pub fn is_welcome(&self, host: &Host) -> bool {
        !is_in(host, &self.refused)
    }

    pub fn preference(&self, host: &Host) -> i64 {
        let here = self.preferred.iter().filter(|(key, value, _)| host.label(key) == Some(value));
        here.map(|(_, _, weight)| weight).sum()
    }
}

fn is_in(host: &Host, places: &BTreeSet<(String, String)>) -> bool {
    places.iter().any(|(key, value)| host.label(key) == Some(value))
}

fn anti_affinity(pod: &Pod) -> Option<&Vec<PodAffinityTerm>> {
    let anti = affinity(pod)?.pod_anti_affinity.as_ref()?;
    anti.required_during_scheduling_ignored_during_execution.as_ref()
}

fn refused(pod: &Pod, cluster: &Cluster) -> BTreeSet<(String, String)> {
    let mut places = BTreeSet::new();
    for host in cluster.hosts.values() {
        for other in host.pods.iter().filter(|other| !is_leaving(other)) {
            for term in anti_affinity(other).into_iter().flatten() {
                if let Some(value) = host.label(&term.topology_key)
                    && means(term, other, pod, cluster)
                {
                    places.insert((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
    }
    places
}

fn preferred(pod: &Pod, cluster: &Cluster) -> Vec<(String, String, i64)> {
    let near = affinity(pod).and_then(|a| a.pod_affinity.as_ref());
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity(pod).and_then(|a| a.pod_anti_affinity.as_ref());
    let apart = apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let near = near.into_iter().flatten().map(|term| (term, i64::from(term.weight)));
    let apart = apart.into_iter().flatten().map(|term| (term, -i64::from(term.weight)));
    near.chain(apart)
        .flat_map(|(term, weight)| {
            let places = topologies(&term.pod_affinity_term, pod, cluster);
            places.map(move |(key, value)| (key, value, weight))
        })
        .collect()
}

/// Where the pods are that a term of `pod` means; a place with two such pods comes twice.
fn topologies<'a>(
    term: &'a PodAffinityTerm,
    pod: &'a Pod,
    cluster: &'a Cluster,
) -> impl Iterator<Item = (String, String)> + 'a {
    cluster.hosts.values().flat_map(move |host| {
        let value = host.label(&term.topology_key);
        let pods = value.map(|_| host.pods.iter()).into_iter().flatten();
        let meant = pods.filter(move |other| !is_leaving(other) && means(term, pod, other, cluster));
        meant.filter_map(move |_| Some((term.topology_key.clone(), value?.to_owned())))
    })
}

/// Whether a term of `owner` means `other`.
fn means(term: &PodAffinityTerm, owner: &Pod, other: &Pod, cluster: &Cluster) -> bool {
    let named = term.namespaces.iter().flatten();
    let in_namespace = match &term.namespace_selector {
        None if named.clone().next().is_none() => namespace(owner) == namespace(other),
        None => named.into_iter().any(|name| name == namespace(other)),
        Some(selector) => {
            named.into_iter().any(|name| name == namespace(other))
                || selects(selector, cluster.namespaces.get(namespace(other)))
        }
    };
    let Some(selector) = &term.label_selector else { return false };
    let same = with_keys(selector, term.match_label_keys.as_ref(), "In", owner.metadata.labels.as_ref());
    let other_than = term.mismatch_label_keys.as_ref();
    let both = with_keys(&same, other_than, "NotIn", owner.metadata.labels.as_ref());
    in_namespace && selects(&both, other.metadata.labels.as_ref())
}

/// A selector that also asks for the pod's own values of some labels (`matchLabelKeys`, KEP-3243 and KEP-3633).
pub fn with_keys(
    selector: &LabelSelector,
    keys: Option<&Vec<String>>,
    operator: &str,
    labels: Option<&Labels>,
) -> LabelSelector {
    let mut selector = selector.clone();
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.and_then(|labels| labels.get(key)) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    selector
}
