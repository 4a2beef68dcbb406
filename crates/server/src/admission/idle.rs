//! What is accepted and kept though nothing in this version acts on it: its writer is warned.
//!
//! One line a kind or field. A line goes when its controller comes.

use machinery::Object;
use serde_json::Value;

use super::request::{AdmissionRequest, Operation};
use crate::http::warnings::warn;

/// Which objects of a kind are meant.
enum When {
    Always,
    /// Those whose field says anything.
    Has(&'static str),
    /// Those with a list of which an item's field has that value.
    Among(&'static str, &'static str, &'static str),
    /// Runtime classes of another handler.
    OtherHandler,
}

use When::{Always, Among, Has, OtherHandler};

/// The handlers that hosts have: processes of the host, and containers, which pods without a class are.
const HANDLERS: [&str; 2] = ["host", "oci"];

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
        "no host has this RuntimeClass's handler in this version: hosts have \"oci\", which pods without a class get, and \"host\"",
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
];

/// Warns a client that creates or changes an object which parts of it nothing acts on.
pub(super) fn tell(request: &AdmissionRequest<'_>, object: &Object) {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !request.subresource.is_empty() || object.deletion_timestamp().is_some() {
        return;
    }
    let resource = request.named.resource;
    for (group, plural, when, what) in IDLE {
        if (*group, *plural) == (resource.group, resource.plural) && when.holds(object) {
            warn(*what);
        }
    }
}

impl When {
    fn holds(&self, object: &Object) -> bool {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let list = |path: &str| object.pointer(path).and_then(Value::as_array).into_iter().flatten();
        match self {
            Always => true,
            Has(path) => object.pointer(path).is_some_and(|value| !is_empty(value)),
            Among(path, field, value) => list(path).any(|item| item[*field] == **value),
            OtherHandler => !HANDLERS.contains(&text("/handler")),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
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
