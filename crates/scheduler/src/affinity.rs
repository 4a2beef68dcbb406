//! Affinities: to nodes by their labels, to and against other pods.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use objects::{Labels, Meta, Pod, PodSpec, node_meets, selects, selects_node};

use crate::class::Class;
use crate::cluster::Namespaces;
use crate::node::Node;

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_deref()
}

/// Whether a node has what the pod's node selector and required node affinity ask for.
pub(crate) fn wants_node(spec: &PodSpec, node: &Node) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| node.label(k) == Some(v));
    let affinity = spec.affinity.as_deref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let labels = node.metadata.labels.as_deref();
    selected && required.is_none_or(|selector| selects_node(selector, node.name(), labels))
}

/// The weight of the preferred node affinities that a node meets.
pub(crate) fn preferred_node(pod: &Pod, node: &Node) -> i64 {
    let affinity = affinity(pod).and_then(|affinity| affinity.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = terms
        .into_iter()
        .flatten()
        .filter(|term| node_meets(&term.preference, node.name(), node.metadata.labels.as_deref()));
    met.map(|term| i64::from(term.weight)).sum()
}

/// A pod affinity term with everything in it that depends on its owner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    pub topology_key: String,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    /// Without one, no pod is meant.
    selector: Option<LabelSelector>,
}

impl Term {
    /// A term of a pod.
    pub fn of(term: &PodAffinityTerm, owner: &Pod) -> Self {
        let labels = owner.metadata.labels.as_deref();
        let selector = term.label_selector.as_ref().map(|selector| {
            let same = with_keys(selector, term.match_label_keys.as_ref(), "In", labels);
            with_keys(&same, term.mismatch_label_keys.as_ref(), "NotIn", labels)
        });
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.metadata.namespace().to_owned());
        }
        Term {
            topology_key: term.topology_key.clone(),
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
            selector,
        }
    }

    /// Whether the term means pods of a class.
    pub fn means(&self, other: &Class, namespaces: &Namespaces) -> bool {
        let by_labels = |selector| selects(selector, namespaces.get(&*other.namespace));
        let in_namespace = self.namespaces.iter().any(|name| **name == *other.namespace)
            || self.namespace_selector.as_ref().is_some_and(by_labels);
        in_namespace && self.selector.as_ref().is_some_and(|s| selects(s, other.labels.as_deref()))
    }
}

/// The required terms by which a pod keeps near others.
pub(crate) fn near(pod: &Pod) -> Vec<Term> {
    let near = affinity(pod).and_then(|a| a.pod_affinity.as_ref());
    let terms = near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|term| Term::of(term, pod)).collect()
}

/// The required terms by which a pod keeps away from others.
pub(crate) fn anti_affinity(pod: &Pod) -> Option<&Vec<PodAffinityTerm>> {
    let anti = affinity(pod)?.pod_anti_affinity.as_ref()?;
    anti.required_during_scheduling_ignored_during_execution.as_ref()
}

/// The weight of a required affinity for those that it means (`hardPodAffinityWeight` upstream, 1 by default).
const REQUIRED_WEIGHT: i64 = 1;

/// What a pod's terms say to others that come after it: that they should be near it, or apart.
pub(crate) fn draws(pod: &Pod) -> Vec<(Term, i64)> {
    if affinity(pod).is_none() {
        return Vec::new();
    }
    let required = near(pod).into_iter().map(|term| (term, REQUIRED_WEIGHT));
    required.chain(preferred(pod)).collect()
}

/// The preferred terms of a pod: a positive weight to be near, a negative one to be apart.
pub(crate) fn preferred(pod: &Pod) -> Vec<(Term, i64)> {
    let near = affinity(pod).and_then(|a| a.pod_affinity.as_ref());
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity(pod).and_then(|a| a.pod_anti_affinity.as_ref());
    let apart = apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let near = near.into_iter().flatten().map(|term| (term, i64::from(term.weight)));
    let apart = apart.into_iter().flatten().map(|term| (term, -i64::from(term.weight)));
    near.chain(apart).map(|(term, weight)| (Term::of(&term.pod_affinity_term, pod), weight)).collect()
}

/// A selector that also asks for the pod's own values of some labels (`matchLabelKeys`, KEP-3243 and KEP-3633).
pub(crate) fn with_keys(
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
