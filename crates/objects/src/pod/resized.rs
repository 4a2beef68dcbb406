//! What a pod takes of its node while it is resized in place (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Container, PodSpec, RESIZE_PENDING, Resources, StoredCondition, StoredContainer, StoredStatus};

/// The spec with the requests that count while it is resized, if they are others than its own.
pub(super) fn resized(spec: &PodSpec, status: &StoredStatus) -> Option<PodSpec> {
    let is_never =
        |c: &StoredCondition| c.kind == RESIZE_PENDING && c.reason.as_deref() == Some("Infeasible");
    let is_infeasible = status.conditions.iter().flatten().any(is_never);
    let counts = |asked: &Option<Resources>, held: Held| held.counted(asked.as_ref(), is_infeasible);
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let mains = status.container_statuses.as_deref().unwrap_or_default();
    let of_container = |at: usize, asks: &Container, told: &[StoredContainer]| {
        counts(&asks.resources, told_of(&asks.name, at, told)?.held())
    };
    let differs = |containers: &[Container], told: &[StoredContainer]| {
        containers.iter().enumerate().any(|(at, asks)| of_container(at, asks, told).is_some())
    };
    let whole = counts(&spec.resources, Held(status.allocated_resources.as_ref(), status.resources.as_ref()));
    // Most pods are at no resize: they aren't copied.
    let asked_first = spec.init_containers.as_deref().unwrap_or_default();
    if whole.is_none() && !differs(asked_first, init) && !differs(&spec.containers, mains) {
        return None;
    }
    let mut counted = spec.clone();
    counted.resources = whole.or(counted.resources);
    let first = counted.init_containers.as_deref_mut().unwrap_or_default();
    for (containers, told) in [(first, init), (&mut counted.containers[..], mains)] {
        for (at, asks) in containers.iter_mut().enumerate() {
            if let Some(other) = of_container(at, asks, told) {
                asks.resources = Some(other);
            }
        }
    }
    Some(counted)
}

/// What is said of a container by its name. Hosts write statuses in the order of the spec; nothing holds others to that.
fn told_of<'a>(name: &str, at: usize, told: &'a [StoredContainer]) -> Option<&'a StoredContainer> {
    let is_its = |told: &&StoredContainer| told.name == name;
    told.get(at).filter(is_its).or_else(|| told.iter().find(is_its))
}

impl StoredContainer {
    fn held(&self) -> Held<'_> {
        Held(self.allocated_resources.as_ref(), self.resources.as_ref())
    }
}

/// What a pod, or a container of it, was given by its host, and has.
struct Held<'a>(Option<&'a BTreeMap<String, Quantity>>, Option<&'a Resources>);

impl Held<'_> {
    /// The requests that count, if they are others than those that are asked for: the most of all, or what is held alone.
    fn counted(&self, asked: Option<&Resources>, is_infeasible: bool) -> Option<Resources> {
        let milli = |of: &Quantity| machinery::Quantity::parse(&of.0).map_or(0, |quantity| quantity.milli());
        let asked = asked.and_then(|asked| asked.requests.as_ref());
        let has = self.1.and_then(|has| has.requests.as_ref());
        let mut counted: Option<BTreeMap<String, Quantity>> = None;
        for (list, replaces) in [(self.0, is_infeasible), (has, false)] {
            for (name, amount) in list.into_iter().flatten() {
                let known = counted.as_ref().or(asked).and_then(|list| list.get(name));
                if known != Some(amount)
                    && (replaces || known.is_none_or(|known| milli(amount) > milli(known)))
                {
                    let counted = counted.get_or_insert_with(|| asked.cloned().unwrap_or_default());
                    counted.insert(name.clone(), amount.clone());
                }
            }
        }
        counted.map(|requests| Resources { requests: Some(requests) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::Pod;

    #[test]
    fn a_pod_that_is_resized_takes_the_most_of_what_it_asks_for_and_has() {
        let pod = |asks: &str, given: &str, has: &str, reason: &str| -> Pod {
            let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
            let container = json!({"name": "c", "resources": requests(asks)});
            let told = json!({"name": "c", "allocatedResources": {"cpu": given}, "resources": requests(has)});
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]},
                "status": {"containerStatuses": [told],
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}]}}))
            .unwrap()
        };
        for (asks, given, has, reason, takes) in [
            ("1", "1", "1", "", "1"),
            ("2", "1", "1", "Deferred", "2"),
            ("1", "1", "2", "", "2"),
            ("500m", "2", "1", "", "2"),
            ("1000", "1", "1", "Infeasible", "1"),
            ("1000", "1", "2", "Infeasible", "2"),
        ] {
            let pod = pod(asks, given, has, reason);
            let of = |spec: &PodSpec| {
                spec.containers[0].resources.clone().unwrap().requests.unwrap()["cpu"].0.clone()
            };
            assert_eq!(of(pod.taken().unwrap()), takes, "{asks} {given} {has} {reason}");
            assert_eq!(of(pod.spec.as_ref().unwrap()), asks);
        }
    }

    #[test]
    fn what_a_container_has_is_said_under_its_name() {
        let container =
            |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let pod = |told: serde_json::Value| -> Pod {
            let containers = [container("a", "1"), container("b", "2")];
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers},
                "status": {"containerStatuses": told}}))
            .unwrap()
        };
        let resized = pod(json!([container("b", "2"), container("a", "3")]));
        let takes: Vec<String> = resized
            .taken()
            .unwrap()
            .containers
            .iter()
            .map(|c| c.resources.clone().unwrap().requests.unwrap()["cpu"].0.clone())
            .collect();
        assert_eq!(takes, ["3", "2"]);
        let other = pod(json!([container("b", "1"), container("c", "9")]));
        assert!(Arc::ptr_eq(other.taken().unwrap(), other.spec.as_ref().unwrap()), "as it asks");
    }
}
