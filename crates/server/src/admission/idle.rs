//! What is accepted and kept though nothing in this version acts on it: its writer is warned.
//!
//! One line a kind or field. A line goes when its controller comes.

use machinery::Object;
use serde_json::Value;
use store::State;

use super::request::{AdmissionRequest, Operation};
use crate::http::warnings::warn;

/// Which objects of a kind are meant.
enum When {
    Always,
    /// Those whose field has that value.
    Is(&'static str, &'static str),
    /// Those whose field says anything.
    Has(&'static str),
    /// Those with a list of which an item's field has that value.
    Among(&'static str, &'static str, &'static str),
    /// Those that run pods, by the spec at that place, as something else than processes of the host.
    NeedsContainers(&'static str),
    /// Runtime classes of another handler.
    OtherHandler,
}

use When::{Always, Among, Has, Is, NeedsContainers, OtherHandler};
use objects::look;

/// The handler that hosts have.
const HOST: &str = "host";
const NO_CONTAINERS: &str = "hosts run no containers in this version yet: pods must name a RuntimeClass whose handler is \
    \"host\" (such as runtimeClassName: host) to run";

/// Group, resource, which objects of it, and the warning.
const IDLE: &[(&str, &str, When, &str)] = &[
    (
        "networking.k8s.io",
        "networkpolicies",
        Always,
        "nothing enforces a NetworkPolicy in this version yet: all traffic passes",
    ),
    (
        "networking.k8s.io",
        "ingresses",
        Always,
        "nothing of the cluster's own serves an Ingress in this version yet",
    ),
    (
        "networking.k8s.io",
        "servicecidrs",
        Always,
        "Services get their addresses from the cluster's first ServiceCIDR alone in this version",
    ),
    (
        "node.k8s.io",
        "runtimeclasses",
        OtherHandler,
        "no host has this RuntimeClass's handler in this version: hosts have \"host\" alone",
    ),
    (
        "",
        "services",
        Is("/spec/type", "LoadBalancer"),
        "nothing gives a Service an address outside the cluster in this version yet: it has its node ports",
    ),
    (
        "",
        "services",
        Has("/spec/externalIPs"),
        "nothing listens on externalIPs of a Service in this version yet",
    ),
    (
        "",
        "services",
        Among("/spec/ports", "protocol", "SCTP"),
        "nothing listens on ports of protocol SCTP in this version yet",
    ),
    ("", "pods", NeedsContainers("/spec"), NO_CONTAINERS),
    ("apps", "deployments", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
    ("apps", "daemonsets", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
    ("apps", "statefulsets", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
    ("apps", "replicasets", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
    ("batch", "jobs", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
    ("batch", "cronjobs", NeedsContainers("/spec/jobTemplate/spec/template/spec"), NO_CONTAINERS),
    ("", "replicationcontrollers", NeedsContainers("/spec/template/spec"), NO_CONTAINERS),
];

/// Warns a client that creates or changes an object which parts of it nothing acts on.
pub(super) fn tell(request: &AdmissionRequest<'_>, object: &Object) {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !request.subresource.is_empty() || object.deletion_timestamp().is_some() {
        return;
    }
    let resource = request.named.resource;
    for (group, plural, when, what) in IDLE {
        if (*group, *plural) == (resource.group, resource.plural) && when.holds(object, request.state) {
            warn(*what);
        }
    }
}

impl When {
    fn holds(&self, object: &Object, state: &State) -> bool {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let list = |path: &str| object.pointer(path).and_then(Value::as_array).into_iter().flatten();
        match self {
            Always => true,
            Is(path, value) => text(path) == *value,
            Has(path) => object.pointer(path).is_some_and(|value| !is_empty(value)),
            Among(path, field, value) => list(path).any(|item| item[*field] == **value),
            NeedsContainers(path) => object.pointer(path).is_some_and(|spec| !is_of_host(spec, state)),
            OtherHandler => text("/handler") != HOST,
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
}

/// Whether pods with that spec are processes of their host.
fn is_of_host(spec: &Value, state: &State) -> bool {
    let Some(class) = spec["runtimeClassName"].as_str() else { return false };
    let key = objects::key("node.k8s.io", "runtimeclasses", "", class);
    let class = state.get(key.as_bytes()).and_then(|kv| look(kv).ok());
    class.is_some_and(|class| class.pointer("/handler").and_then(Value::as_str) == Some(HOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_of_a_kind_that_is_served() {
        for (group, plural, _, what) in IDLE {
            assert!(api::resources().any(|r| (r.group, r.plural) == (*group, *plural)), "{group}/{plural}");
            assert!(what.contains("in this version"), "{what}");
        }
    }
}
