//! What an object uses of the quotas of its namespace, and which quotas it counts for.
//!
//! Follows `k8s.io/kubernetes/pkg/quota/v1/evaluator/core` upstream.

use std::collections::{BTreeMap, BTreeSet};

use cel::Quantity;
use jiff::{SignedDuration, Timestamp};
use machinery::Object;
use serde_json::Value;

use crate::amounts::{Amounts, pod_resources};

/// What a pod must say of itself where a quota limits it.
const MUST_BE_SAID: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// Resources whose count has a name of its own beside `count/…`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// An object, as quotas see it.
#[derive(Debug, Clone, Copy)]
pub struct Quotable<'a> {
    /// The group of its resource.
    pub group: &'a str,
    /// The resource: plural, lower case.
    pub plural: &'a str,
    /// The object itself.
    pub object: &'a Object,
}

/// What a quota limits: `spec.hard`.
pub fn quota_hard(quota: &Object) -> Amounts {
    quota.pointer("/spec/hard").map(Amounts::of).unwrap_or_default()
}

/// Groups and resources that a quota has to look at.
pub fn quota_resources(hard: &Amounts) -> BTreeSet<(String, String)> {
    let place = |name: &str| -> (String, String) {
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return (group.to_owned(), plural.to_owned());
        }
        let plural = match name {
            name if name == "requests.storage" || name.contains(".storageclass.storage.k8s.io/") => {
                "persistentvolumeclaims"
            }
            "services.loadbalancers" | "services.nodeports" => "services",
            name if COUNTED.contains(&name) => name,
            _ => "pods",
        };
        (String::new(), plural.to_owned())
    };
    hard.iter().map(|(name, _)| place(name)).collect()
}

impl Quotable<'_> {
    /// What the object uses; of a pod that has ended only that it is there.
    pub fn usage(&self, now: Timestamp) -> Amounts {
        let one = Quantity::from_units(1);
        let mut usage = Amounts::default();
        let counted = match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        };
        usage.set(counted, one);
        if !self.group.is_empty() {
            return usage;
        }
        match self.plural {
            "pods" if is_over(self.object, now) => return usage,
            "pods" => add_pod(self.object, &mut usage),
            "services" => add_service(self.object, &mut usage),
            "persistentvolumeclaims" => add_claim(self.object, &mut usage),
            _ => {}
        }
        if COUNTED.contains(&self.plural) {
            usage.set(self.plural, one);
        }
        usage
    }

    /// When a pod that is on its way out is given up, if it hasn't ended by then: from that time it uses only that it is there.
    pub fn given_up_at(&self) -> Option<Timestamp> {
        let is_pod = (self.group, self.plural) == ("", "pods");
        (is_pod && !has_ended(self.object)).then(|| given_up_at(self.object)).flatten()
    }

    /// Whether the object is of the scopes of a quota.
    pub fn is_in_scope(&self, quota: &Object) -> bool {
        let list =
            |pointer: &str| quota.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let scopes = list("/spec/scopes");
        let exists = Value::from("Exists");
        scopes.iter().all(|scope| self.matches(scope, &exists, &Value::Null))
            && list("/spec/scopeSelector/matchExpressions")
                .iter()
                .all(|term| self.matches(&term["scopeName"], &term["operator"], &term["values"]))
    }

    fn matches(&self, scope: &Value, operator: &Value, values: &Value) -> bool {
        let text = |pointer: &str| self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let scope = scope.as_str().unwrap_or_default();
        match (self.group, self.plural, scope) {
            ("", "pods", "Terminating") => is_terminating(self.object),
            ("", "pods", "NotTerminating") => !is_terminating(self.object),
            ("", "pods", "BestEffort") => text("/status/qosClass") == "BestEffort",
            ("", "pods", "NotBestEffort") => text("/status/qosClass") != "BestEffort",
            ("", "pods", "PriorityClass") => {
                selects(operator, values, [text("/spec/priorityClassName")].into_iter())
            }
            ("", "pods", "CrossNamespacePodAffinity") => is_cross_namespace(self.object),
            ("", "persistentvolumeclaims", "VolumeAttributesClass") => {
                let fields = [
                    "/spec/volumeAttributesClassName",
                    "/status/currentVolumeAttributesClassName",
                    "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
                ];
                selects(operator, values, fields.into_iter().map(text))
            }
            // Scopes are of pods and claims: nothing else is in one.
            _ => false,
        }
    }

    /// What of the resources that a quota limits the containers of a pod don't say, in words.
    pub fn missing(&self, hard: &Amounts) -> Option<String> {
        if (self.group, self.plural) != ("", "pods") {
            return None;
        }
        let required = || MUST_BE_SAID.into_iter().filter(|name| hard.get(name).is_some());
        let says = |resources: &Value, name: &str| {
            let (part, resource) = name.strip_prefix("limits.").map_or_else(
                || ("requests", name.strip_prefix("requests.").unwrap_or(name)),
                |resource| ("limits", resource),
            );
            !resources[part][resource].is_null()
        };
        let of_pod = self.object.pointer("/spec/resources").unwrap_or(&Value::Null);
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for list in ["/spec/containers", "/spec/initContainers"] {
            for container in self.object.pointer(list).and_then(Value::as_array).into_iter().flatten() {
                for name in required() {
                    if !says(&container["resources"], name) && !says(of_pod, name) {
                        let container = container["name"].as_str().unwrap_or_default();
                        missing.entry(name).or_default().insert(container);
                    }
                }
            }
        }
        let parts: Vec<String> = missing
            .iter()
            .map(|(name, containers)| {
                format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
            })
            .collect();
        (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
    }
}

/// Whether a pod no longer runs: it has ended, or was given up.
fn is_over(pod: &Object, now: Timestamp) -> bool {
    has_ended(pod) || given_up_at(pod).is_some_and(|end| now >= end)
}

fn has_ended(pod: &Object) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    matches!(phase, "Failed" | "Succeeded")
}

fn given_up_at(pod: &Object) -> Option<Timestamp> {
    let grace = pod.meta("deletionGracePeriodSeconds").and_then(Value::as_i64);
    let since = pod.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
    let (at, grace) = since.zip(grace)?;
    at.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn add_pod(pod: &Object, usage: &mut Amounts) {
    let total = pod_resources(pod, true);
    for (resource, amount) in total.requests.iter() {
        if is_native(resource) {
            usage.set(resource, *amount);
        }
        usage.set(format!("requests.{resource}"), *amount);
    }
    for (resource, amount) in total.limits.iter().filter(|(resource, _)| is_native(resource)) {
        usage.set(format!("limits.{resource}"), *amount);
    }
}

/// The resources that Kubernetes knows itself: others are counted as requests alone.
fn is_native(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-")
}

fn add_service(service: &Object, usage: &mut Amounts) {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let kind = service.pointer("/spec/type").and_then(Value::as_str).unwrap_or_default();
    let balanced = kind == "LoadBalancer";
    let all = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if all => ports.len(),
        "LoadBalancer" => {
            ports.iter().filter(|port| port["nodePort"].as_u64().is_some_and(|p| p != 0)).count()
        }
        _ => 0,
    };
    usage.set("services.nodeports", Quantity::from_units(i64::try_from(node_ports).unwrap_or(i64::MAX)));
    usage.set("services.loadbalancers", Quantity::from_units(i64::from(balanced)));
}

fn add_claim(claim: &Object, usage: &mut Amounts) {
    let storage = claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
    let storage = storage.and_then(|text| Quantity::parse(text).ok());
    if let Some(storage) = storage {
        usage.set("requests.storage", storage);
    }
    if let Some(class) =
        claim.pointer("/spec/storageClassName").and_then(Value::as_str).filter(|c| !c.is_empty())
    {
        let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
        usage.set(of_class("persistentvolumeclaims"), Quantity::from_units(1));
        if let Some(storage) = storage {
            usage.set(of_class("requests.storage"), storage);
        }
    }
}

fn is_terminating(pod: &Object) -> bool {
    pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0)
}

/// Whether a pod wants to be near or far from pods of other namespaces.
fn is_cross_namespace(pod: &Object) -> bool {
    let term = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty())
            || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = pod.pointer(&format!("/spec/affinity/{kind}")).unwrap_or(&Value::Null);
        let required = affinity["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(term)
            || preferred.into_iter().flatten().any(|preferred| term(&preferred["podAffinityTerm"]))
    })
}

/// Whether one of the names is selected; an empty one is none.
fn selects<'a>(operator: &Value, values: &Value, names: impl Iterator<Item = &'a str>) -> bool {
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    let listed = |name: &&&str| values.as_array().is_some_and(|values| values.iter().any(|v| v == **name));
    match operator.as_str().unwrap_or_default() {
        "In" => names.iter().any(|name| listed(&name)),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(&name)),
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(plural: &str, object: Value) -> Value {
        let object = Object::from_value(object).unwrap();
        Quotable { group: "", plural, object: &object }.usage(Timestamp::UNIX_EPOCH).to_value()
    }

    #[test]
    fn objects_use_what_they_ask_for_and_that_they_are_there() {
        let resources = json!({"requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"cpu": "2"}});
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}]}});
        assert_eq!(
            usage("pods", pod.clone()),
            json!({"count/pods": "1", "cpu": "1", "limits.cpu": "2", "pods": "1", "requests.cpu": "1",
                "requests.example.com/gpu": "2"})
        );
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(usage("pods", pod), json!({"count/pods": "1"}));
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        assert_eq!(
            usage("services", service),
            json!({"count/services": "1", "services": "1", "services.loadbalancers": "1",
                "services.nodeports": "2"})
        );
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            usage("persistentvolumeclaims", claim),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "1Gi",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "fast.storageclass.storage.k8s.io/requests.storage": "1Gi"})
        );
        let object = Object::from_value(json!({})).unwrap();
        let deployment = Quotable { group: "apps", plural: "deployments", object: &object };
        assert_eq!(
            deployment.usage(Timestamp::UNIX_EPOCH).to_value(),
            json!({"count/deployments.apps": "1"})
        );
    }

    #[test]
    fn scopes_say_which_pods_count() {
        let pod = |class: &str, quality: &str, deadline: Option<i64>| {
            json!({"spec": {"priorityClassName": class, "activeDeadlineSeconds": deadline},
                "status": {"qosClass": quality}})
        };
        let counts = |spec: Value, pod: Value| {
            let (quota, object) = (json!({ "spec": spec }), Object::from_value(pod).unwrap());
            let quota = Object::from_value(quota).unwrap();
            Quotable { group: "", plural: "pods", object: &object }.is_in_scope(&quota)
        };
        let best = || pod("", "BestEffort", None);
        assert!(counts(json!({}), best()));
        assert!(counts(json!({"scopes": ["BestEffort", "NotTerminating"]}), best()));
        assert!(!counts(json!({"scopes": ["BestEffort", "Terminating"]}), best()));
        assert!(counts(json!({"scopes": ["Terminating"]}), pod("", "Burstable", Some(1))));
        let of_class = |operator: &str, values: Value| {
            let term = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            json!({"scopeSelector": {"matchExpressions": [term]}})
        };
        assert!(counts(of_class("In", json!(["high"])), pod("high", "", None)));
        assert!(!counts(of_class("In", json!(["high"])), pod("low", "", None)));
        assert!(counts(of_class("NotIn", json!(["high"])), pod("", "", None)));
        assert!(counts(of_class("Exists", json!(null)), pod("low", "", None)));
        assert!(counts(of_class("DoesNotExist", json!(null)), best()));
        let object = Object::from_value(json!({})).unwrap();
        let quota = Object::from_value(json!({"spec": {"scopes": ["BestEffort"]}})).unwrap();
        assert!(!Quotable { group: "", plural: "services", object: &object }.is_in_scope(&quota));
    }

    #[test]
    fn a_limited_pod_must_say_what_it_needs() {
        let resources = json!({"requests": {"cpu": "1"}});
        let containers = json!([{"name": "b"}, {"name": "a", "resources": resources}]);
        let pod = Object::from_value(json!({"spec": {"containers": containers}})).unwrap();
        let hard = Amounts::of(&json!({"requests.cpu": "4", "limits.memory": "1Gi", "pods": "3"}));
        let missing = Quotable { group: "", plural: "pods", object: &pod }.missing(&hard);
        assert_eq!(missing.unwrap(), "must specify limits.memory for: a,b; requests.cpu for: b");
    }
}
