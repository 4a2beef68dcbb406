//! On which hosts a DaemonSet's pods run (`NodeShouldRunDaemonPod` of `pkg/controller/daemon`).

use k8s_openapi::api::core::v1::Toleration;
use objects::{selects_node, tolerates};
use serde_json::{Value, json};

use crate::kept::{Node, Placement};

/// What every pod of a DaemonSet bears: what is wrong with a host neither keeps it away nor evicts it.
const ALWAYS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// What those in their host's network bear beside.
const ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a host shall have a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Eligibility {
    /// One is to be started.
    pub starts: bool,
    /// One that is there stays.
    pub stays: bool,
}

impl Eligibility {
    const NO: Eligibility = Eligibility { starts: false, stays: false };

    /// About one node.
    pub fn of(placement: &Placement, tolerations: &[Toleration], node: &Node) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let labels = node.metadata.labels.as_deref();
        let label = |key: &String| labels.and_then(|labels| labels.get(key));
        let is_named =
            placement.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
        let is_selected =
            placement.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
        let affinity = placement.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if !is_named || !is_selected || !required.is_none_or(|terms| selects_node(terms, name, labels)) {
            return Eligibility::NO;
        }
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let borne = |effects: &[&str]| {
            let mut hard = taints.clone().filter(|taint| effects.contains(&taint.effect.as_str()));
            hard.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        };
        Eligibility { starts: borne(&["NoSchedule", "NoExecute"]), stays: borne(&["NoExecute"]) }
    }
}

/// What taints a DaemonSet's pods bear: those that its template says and those that all of them do.
pub(super) fn tolerations(placement: &Placement) -> Vec<Toleration> {
    let mut all = placement.tolerations.clone().unwrap_or_default();
    let on_host = (placement.host_network == Some(true)).then_some(ON_HOST_NETWORK);
    for (key, effect) in ALWAYS.into_iter().chain(on_host) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One that ends is replaced by the one that doesn't.
        let same =
            |known: &Toleration| Toleration { toleration_seconds: None, ..known.clone() } == toleration;
        match all.iter_mut().find(|known| same(known)) {
            Some(known) => *known = toleration,
            None => all.push(toleration),
        }
    }
    all
}

/// The affinity by which a pod runs on one host alone, and the other wishes that it had.
pub(super) fn bound_to(affinity: Option<&Value>, node: &str) -> Value {
    let mut affinity = affinity.filter(|affinity| affinity.is_object()).cloned().unwrap_or_else(|| json!({}));
    if !affinity["nodeAffinity"].is_object() {
        affinity["nodeAffinity"] = json!({});
    }
    let by_name = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchFields": [by_name]}]});
    affinity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eligibility(spec: Value, node: Value) -> (bool, bool) {
        let placement: Placement = serde_json::from_value(spec).unwrap();
        let node: Node = serde_json::from_value(node).unwrap();
        let eligibility = Eligibility::of(&placement, &tolerations(&placement), &node);
        (eligibility.starts, eligibility.stays)
    }

    #[test]
    fn a_host_has_a_pod_if_it_is_meant_and_its_taints_are_borne() {
        let node = |taints: Value| json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let named = |name: &str| {
            let terms =
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        for (spec, taints, expected) in [
            (json!({}), Value::Null, (true, true)),
            (json!({"nodeSelector": {"disk": "ssd"}}), Value::Null, (true, true)),
            (json!({"nodeSelector": {"disk": "hdd"}}), Value::Null, (false, false)),
            (json!({"nodeName": "n1"}), Value::Null, (true, true)),
            (json!({"nodeName": "n2"}), Value::Null, (false, false)),
            (named("n1"), Value::Null, (true, true)),
            (named("n2"), Value::Null, (false, false)),
            (json!({}), taint("mine", "NoSchedule"), (false, true)),
            (json!({}), taint("mine", "NoExecute"), (false, false)),
            (json!({}), taint("mine", "PreferNoSchedule"), (true, true)),
            (
                json!({"tolerations": [{"key": "mine", "operator": "Exists"}]}),
                taint("mine", "NoExecute"),
                (true, true),
            ),
            (json!({}), taint("node.kubernetes.io/unreachable", "NoExecute"), (true, true)),
            (json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), (true, true)),
            (json!({}), taint("node.kubernetes.io/not-ready", "NoSchedule"), (false, true)),
            (json!({}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), (false, true)),
            (
                json!({"hostNetwork": true}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                (true, true),
            ),
        ] {
            assert_eq!(eligibility(spec.clone(), node(taints.clone())), expected, "{spec} {taints}");
        }
    }

    #[test]
    fn a_toleration_that_ends_becomes_one_that_does_not() {
        let ends = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 30});
        let placement: Placement = serde_json::from_value(json!({"tolerations": [ends]})).unwrap();
        let all = tolerations(&placement);
        assert_eq!((all.len(), all[0].toleration_seconds), (ALWAYS.len(), None));
    }

    #[test]
    fn a_pod_is_bound_to_its_host_and_keeps_its_other_wishes() {
        let affinity = json!({"podAntiAffinity": {"a": 1}, "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [],
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": []}]}}});
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
        let required = json!({"nodeSelectorTerms": terms});
        assert_eq!(
            bound_to(Some(&affinity), "n1"),
            json!({"podAntiAffinity": {"a": 1}, "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [],
                "requiredDuringSchedulingIgnoredDuringExecution": required}})
        );
        let alone = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        assert_eq!(bound_to(None, "n1"), alone);
        assert_eq!(bound_to(Some(&Value::Null), "n1"), alone);
    }
}
