//! What a host's agent may do: what the role `system:node` says, but of secrets, volumes and their like only
//! those that pods on its host use.
//!
//! Follows upstream's Node authorizer (`plugin/pkg/auth/authorizer/node`).

use std::borrow::Cow;

use machinery::FieldSelector;
use objects::{ADDRESS_NAMESPACE, awaits_folder_of, may_change_address};
use serde_json::Value;
use store::{KeyValue, State};

use crate::Attributes;
use crate::uses::UsedKind;

const LEASES: &str = "kube-node-lease";

/// What is decided about a request of a host's agent before its role is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Only what pods on the host use, and this isn't.
    No,
    Yes,
    /// What the role says.
    AsRole,
}

/// Decides about a request of the agent on `node`; `is_used` says whether a pod there uses an object, by its kind,
/// namespace and name.
pub(crate) fn decide(
    node: &str,
    wanted: &Attributes<'_>,
    state: &State,
    is_used: &dyn Fn(UsedKind, &str, &str) -> bool,
) -> Opinion {
    let Attributes { verb, group, resource, subresource, namespace, name, fields } = *wanted;
    let reads = matches!(verb, "get" | "list" | "watch");
    let answer = |allowed: bool| if allowed { Opinion::Yes } else { Opinion::No };
    match (group, resource, subresource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts", "") => {
            // A list or a watch must be of one object by name.
            let one = named(name, fields);
            answer(reads && !one.is_empty() && is_used(kind_of(resource), namespace, &one))
        }
        ("", "persistentvolumeclaims", "status") => {
            let verb = matches!(verb, "get" | "update" | "patch");
            answer(verb && is_used(UsedKind::VolumeClaim, namespace, name))
        }
        // Once it has removed the folder of a volume, it lets the volume go.
        ("", "persistentvolumes", "") if verb == "patch" => answer(awaits_folder_of(node, name, state)),
        ("", "persistentvolumes", "") => answer(verb == "get" && is_claimed(name, state, is_used)),
        ("", "serviceaccounts", "token") => {
            answer(verb == "create" && is_used(UsedKind::ServiceAccount, namespace, name))
        }
        ("resource.k8s.io", "resourceclaims", "") => {
            answer(verb == "get" && is_used(UsedKind::ResourceClaim, namespace, name))
        }
        ("storage.k8s.io", "volumeattachments", "") => {
            let key = objects::key(group, resource, "", name);
            let attached = state.get(key.as_bytes()).and_then(|kv| parse(kv));
            answer(verb == "get" && attached.is_some_and(|it| it["spec"]["nodeName"] == node))
        }
        ("storage.k8s.io", "csinodes", "") => own(verb, name, node),
        ("coordination.k8s.io", "leases", "") => match namespace {
            LEASES => own(verb, name, node),
            // It takes and gives up the addresses of services that it is to hold.
            ADDRESS_NAMESPACE => answer(verb == "patch" && may_change_address(node, name, state)),
            _ => Opinion::No,
        },
        // Its own node alone (KEP-4601).
        ("", "nodes", "") if reads => answer(named(name, fields) == node),
        ("", "nodes", _) => own(verb, name, node),
        ("resource.k8s.io", "resourceslices", "") => match verb {
            "create" => Opinion::Yes,
            "list" | "watch" | "deletecollection" => answer(selects(fields, "spec.nodeName", node)),
            _ => {
                let key = objects::key(group, resource, "", name);
                let slice = state.get(key.as_bytes()).and_then(|kv| parse(kv));
                let changes = matches!(verb, "get" | "update" | "patch" | "delete");
                answer(changes && slice.is_some_and(|slice| slice["spec"]["nodeName"] == node))
            }
        },
        ("", "pods", "") if matches!(verb, "list" | "watch") => {
            answer(selects(fields, "spec.nodeName", node))
        }
        ("", "pods", "") if verb == "get" => {
            let key = objects::key("", "pods", namespace, name);
            let pod = state.get(key.as_bytes()).and_then(|kv| parse(kv));
            answer(pod.is_some_and(|pod| pod["spec"]["nodeName"] == node))
        }
        _ => Opinion::AsRole,
    }
}

/// What an agent may do with what bears its host's name; a new object's name isn't known yet.
fn own(verb: &str, name: &str, node: &str) -> Opinion {
    match verb {
        "create" => Opinion::AsRole,
        _ if name == node => Opinion::AsRole,
        _ => Opinion::No,
    }
}

/// The one object that is meant, by its name or by a field selector; empty if there may be several.
fn named<'a>(name: &'a str, fields: &str) -> Cow<'a, str> {
    if !name.is_empty() {
        return name.into();
    }
    FieldSelector::required(fields, "metadata.name").unwrap_or_default().into()
}

/// Whether a field selector means those alone whose field has that value.
fn selects(fields: &str, field: &str, value: &str) -> bool {
    FieldSelector::required(fields, field).is_some_and(|required| required == value)
}

fn parse(kv: &KeyValue) -> Option<Value> {
    serde_json::from_slice(&kv.value.bytes()).ok()
}

fn kind_of(resource: &str) -> UsedKind {
    match resource {
        "secrets" => UsedKind::Secret,
        "configmaps" => UsedKind::ConfigMap,
        "persistentvolumeclaims" => UsedKind::VolumeClaim,
        _ => UsedKind::ServiceAccount,
    }
}

/// Whether a pod on the node uses a claim that the volume is bound to.
fn is_claimed(name: &str, state: &State, is_used: &dyn Fn(UsedKind, &str, &str) -> bool) -> bool {
    let key = objects::key("", "persistentvolumes", "", name);
    let Some(volume) = state.get(key.as_bytes()).and_then(|kv| parse(kv)) else { return false };
    let claim = &volume["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().unwrap_or_default();
    is_used(UsedKind::VolumeClaim, text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::{Op, Txn};

    use super::*;
    use crate::uses::Uses;

    /// What is decided about the agent on n1.
    fn of_n1(wanted: &Attributes<'_>, state: &State) -> Opinion {
        let mut uses = Uses::default();
        uses.follow(state);
        decide("n1", wanted, state, &|kind, namespace, name| uses.holds("n1", kind, namespace, name))
    }

    fn state(objects: &[Value]) -> State {
        let mut state = State::default();
        let put = |object: &Value| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let plural = format!("{}s", text("/kind").to_lowercase());
            let key = objects::key("", &plural, text("/metadata/namespace"), text("/metadata/name"));
            Op::put(key, object.to_string())
        };
        let txn = Txn { conditions: vec![], success: objects.iter().map(put).collect(), failure: vec![] };
        state.apply(&txn).unwrap();
        state
    }

    #[test]
    fn an_agent_reads_the_secrets_of_its_own_pods_alone() {
        let pod = |name: &str, node: &str, secret: &str| {
            json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "spec": {
                "nodeName": node, "serviceAccountName": "sa",
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}],
                "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": secret}}],
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "k"}}}]}],
            }})
        };
        let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "pv"},
            "spec": {"claimRef": {"namespace": "a", "name": "claim"}}});
        let folder = |name: &str, host: &str, finalizers: &[&str]| {
            let on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
            json!({"kind": "PersistentVolume",
                "metadata": {"name": name, "deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": finalizers,
                    "annotations": {"pv.kubernetes.io/provisioned-by": "holdfast.dev/local-path"}},
                "spec": {"local": {"path": "/v"},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on]}]}}}})
        };
        let folders = [
            folder("mine", "n1", &["holdfast.dev/local-path"]),
            folder("used", "n1", &["holdfast.dev/local-path", "kubernetes.io/pv-protection"]),
            folder("theirs", "n2", &["holdfast.dev/local-path"]),
        ];
        let pods = [pod("p1", "n1", "one"), pod("p2", "n2", "two"), volume];
        let state = state(&[&pods[..], &folders[..]].concat());
        let get = |resource, subresource, verb, namespace, name, fields| {
            let wanted = Attributes { verb, group: "", resource, subresource, namespace, name, fields };
            of_n1(&wanted, &state)
        };
        assert_eq!(get("secrets", "", "get", "a", "one", ""), Opinion::Yes);
        assert_eq!(get("secrets", "", "watch", "a", "", "metadata.name=one"), Opinion::Yes);
        assert_eq!(get("secrets", "", "get", "a", "two", ""), Opinion::No);
        assert_eq!(get("secrets", "", "get", "b", "one", ""), Opinion::No);
        assert_eq!(get("secrets", "", "list", "a", "", ""), Opinion::No);
        assert_eq!(get("secrets", "", "update", "a", "one", ""), Opinion::No);
        assert_eq!(get("configmaps", "", "get", "a", "map", ""), Opinion::Yes);
        assert_eq!(get("persistentvolumeclaims", "", "get", "a", "claim", ""), Opinion::Yes);
        assert_eq!(get("persistentvolumes", "", "get", "", "pv", ""), Opinion::Yes);
        assert_eq!(get("persistentvolumes", "", "get", "", "other", ""), Opinion::No);
        assert_eq!(get("persistentvolumes", "", "patch", "", "mine", ""), Opinion::Yes);
        assert_eq!(get("persistentvolumes", "", "delete", "", "mine", ""), Opinion::No);
        for other in ["pv", "used", "theirs"] {
            assert_eq!(get("persistentvolumes", "", "patch", "", other, ""), Opinion::No, "{other}");
        }
        assert_eq!(get("serviceaccounts", "token", "create", "a", "sa", ""), Opinion::Yes);
        assert_eq!(get("pods", "", "list", "", "", ""), Opinion::No);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName=n1"), Opinion::Yes);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName=n2"), Opinion::No);
        assert_eq!(get("pods", "", "get", "a", "p1", ""), Opinion::Yes);
        assert_eq!(get("pods", "", "get", "a", "p2", ""), Opinion::No);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName!=n1"), Opinion::No);
        // One term, whose value has a comma in it.
        assert_eq!(get("pods", "", "list", "", "", "metadata.name!=a\\,spec.nodeName=n1"), Opinion::No);
        assert_eq!(get("services", "", "list", "", "", ""), Opinion::AsRole);
        for verb in ["get", "list", "watch"] {
            assert_eq!(get("nodes", "", verb, "", "n1", ""), Opinion::Yes);
            assert_eq!(get("nodes", "", verb, "", "n2", ""), Opinion::No);
            assert_eq!(get("nodes", "", verb, "", "", ""), Opinion::No);
        }
        assert_eq!(get("nodes", "", "list", "", "", "metadata.name=n1"), Opinion::Yes);
        assert_eq!(get("nodes", "", "list", "", "", "metadata.name!=n1"), Opinion::No);
        assert_eq!(get("nodes", "", "patch", "", "n2", ""), Opinion::No);
        assert_eq!(get("nodes", "status", "patch", "", "n2", ""), Opinion::No);
        assert_eq!(get("nodes", "status", "patch", "", "n1", ""), Opinion::AsRole);
    }

    #[test]
    fn a_pod_that_an_agent_made_gives_it_nothing() {
        let mirror = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a",
            "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1",
            "volumes": [{"name": "v", "secret": {"secretName": "one"}}]}});
        let state = state(&[mirror]);
        let wanted = Attributes {
            verb: "get",
            group: "",
            resource: "secrets",
            subresource: "",
            namespace: "a",
            name: "one",
            fields: "",
        };
        assert_eq!(of_n1(&wanted, &state), Opinion::No);
    }
}
