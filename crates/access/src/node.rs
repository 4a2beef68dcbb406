//! What a host's agent may do: what the role `system:node` says, but of secrets, volumes and their like only
//! those that pods on its host use.
//!
//! Follows upstream's Node authorizer (`plugin/pkg/auth/authorizer/node`).

use std::borrow::Cow;

use api::FieldSelector;
use serde_json::Value;
use store::{KeyRange, KeyValue, State};

use crate::Attributes;

/// What a host says of pods that it runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";

/// What is decided about a request of a host's agent before its role is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Only what pods on the host use, and this isn't.
    No,
    Yes,
    /// What the role says.
    AsRole,
}

/// Decides about a request of the agent on `node`.
pub(super) fn decide(node: &str, wanted: &Attributes<'_>, state: &State) -> Verdict {
    let Attributes { verb, group, resource, subresource, namespace, name, fields } = *wanted;
    let reads = matches!(verb, "get" | "list" | "watch");
    let answer = |allowed: bool| if allowed { Verdict::Yes } else { Verdict::No };
    match (group, resource, subresource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts", "") => {
            // A list or a watch must be of one object by name.
            let one = named(name, fields);
            answer(reads && !one.is_empty() && is_used(node, resource, namespace, &one, state))
        }
        ("", "persistentvolumeclaims", "status") => {
            let verb = matches!(verb, "get" | "update" | "patch");
            answer(verb && is_used(node, "persistentvolumeclaims", namespace, name, state))
        }
        ("", "persistentvolumes", "") => answer(verb == "get" && is_claimed(node, name, state)),
        ("", "serviceaccounts", "token") => {
            answer(verb == "create" && is_used(node, "serviceaccounts", namespace, name, state))
        }
        ("resource.k8s.io", "resourceclaims", "") => {
            answer(verb == "get" && is_used(node, resource, namespace, name, state))
        }
        ("storage.k8s.io", "volumeattachments", "") => {
            let key = objects::key(group, resource, "", name);
            let attached = state.get(key.as_bytes()).and_then(|kv| parse(kv));
            answer(verb == "get" && attached.is_some_and(|it| it["spec"]["nodeName"] == node))
        }
        ("storage.k8s.io", "csinodes", "") => own(verb, name, node),
        ("coordination.k8s.io", "leases", "") => match namespace {
            LEASES => own(verb, name, node),
            _ => Verdict::No,
        },
        // Its own node alone (KEP-4601).
        ("", "nodes", "") if reads => answer(named(name, fields) == node),
        ("", "nodes", _) => own(verb, name, node),
        ("resource.k8s.io", "resourceslices", "") => match verb {
            "create" => Verdict::Yes,
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
        _ => Verdict::AsRole,
    }
}

/// What an agent may do with what bears its host's name; a new object's name isn't known yet.
fn own(verb: &str, name: &str, node: &str) -> Verdict {
    match verb {
        "create" => Verdict::AsRole,
        _ if name == node => Verdict::AsRole,
        _ => Verdict::No,
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
    serde_json::from_slice(&kv.value).ok()
}

/// The pods on a node in a namespace (all of them, if it is empty) that speak of `word`.
fn pods<'a>(
    node: &'a str,
    namespace: &str,
    word: &'a str,
    state: &'a State,
) -> impl Iterator<Item = Value> + 'a {
    let prefix = objects::namespace_prefix("", "pods", namespace);
    let range = KeyRange::prefix(prefix);
    // Most pods are ruled out by their bytes, without parsing them.
    let speaks = move |kv: &&std::sync::Arc<KeyValue>| {
        let text = String::from_utf8_lossy(&kv.value);
        text.contains(word) && text.contains(node)
    };
    state
        .range(&range)
        .filter(speaks)
        .filter_map(|kv| parse(kv))
        .filter(move |pod| pod["spec"]["nodeName"] == node)
}

/// Whether a pod on the node uses the object.
fn is_used(node: &str, resource: &str, namespace: &str, name: &str, state: &State) -> bool {
    !namespace.is_empty()
        && !name.is_empty()
        && pods(node, namespace, name, state).any(|pod| uses(&pod, resource, name))
}

fn uses(pod: &Value, resource: &str, name: &str) -> bool {
    // A host makes these itself: they give it nothing, whatever they say.
    if !pod["metadata"]["annotations"][MIRROR].is_null() {
        return false;
    }
    let spec = &pod["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if resource == "serviceaccounts" {
        return spec["serviceAccountName"] == name;
    }
    if resource == "resourceclaims" {
        let of_spec = list(&spec["resourceClaims"]);
        let of_status = list(&pod["status"]["resourceClaimStatuses"]);
        return of_spec.iter().chain(&of_status).any(|claim| claim["resourceClaimName"] == name);
    }
    let (volume, key, reference, from) = match resource {
        "secrets" => ("secret", "secretName", "secretKeyRef", "secretRef"),
        "configmaps" => ("configMap", "name", "configMapKeyRef", "configMapRef"),
        _ => ("persistentVolumeClaim", "claimName", "", ""),
    };
    let in_volume = |entry: &Value| {
        let own = entry["name"].as_str().unwrap_or_default();
        let generated = format!("{}-{own}", pod["metadata"]["name"].as_str().unwrap_or_default());
        entry[volume][key] == name
            || list(&entry["projected"]["sources"]).iter().any(|source| source[volume]["name"] == name)
            || (resource == "persistentvolumeclaims" && entry["ephemeral"].is_object() && generated == name)
            || (resource == "secrets" && names_secret(entry, name))
    };
    if list(&spec["volumes"]).iter().any(in_volume) {
        return true;
    }
    if resource == "secrets" && list(&spec["imagePullSecrets"]).iter().any(|secret| secret["name"] == name) {
        return true;
    }
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    containers.iter().flat_map(|field| list(&spec[*field])).any(|container| {
        list(&container["env"]).iter().any(|env| env["valueFrom"][reference]["name"] == name)
            || list(&container["envFrom"]).iter().any(|env| env[from]["name"] == name)
    })
}

/// Whether a volume of any other kind names the secret.
fn names_secret(volume: &Value, name: &str) -> bool {
    volume.as_object().into_iter().flatten().any(|(_, source)| {
        source["secretRef"]["name"] == name
            || source["nodePublishSecretRef"]["name"] == name
            || source["secretName"] == name
    })
}

/// Whether a pod on the node uses a claim that the volume is bound to.
fn is_claimed(node: &str, name: &str, state: &State) -> bool {
    let key = objects::key("", "persistentvolumes", "", name);
    let Some(volume) = state.get(key.as_bytes()).and_then(|kv| parse(kv)) else { return false };
    let claim = &volume["spec"]["claimRef"];
    let text = |field: &str| claim[field].as_str().unwrap_or_default();
    is_used(node, "persistentvolumeclaims", text("namespace"), text("name"), state)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;
    use store::{Op, Txn};

    use super::*;

    fn state(objects: &[Value]) -> State {
        let mut state = State::default();
        let put = |object: &Value| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let plural = format!("{}s", text("/kind").to_lowercase());
            let key = objects::key("", &plural, text("/metadata/namespace"), text("/metadata/name"));
            Op::Put { key: Bytes::from(key), value: Bytes::from(object.to_string()), lease: 0 }
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
        let state = state(&[pod("p1", "n1", "one"), pod("p2", "n2", "two"), volume]);
        let get = |resource, subresource, verb, namespace, name, fields| {
            let wanted = Attributes { verb, group: "", resource, subresource, namespace, name, fields };
            decide("n1", &wanted, &state)
        };
        assert_eq!(get("secrets", "", "get", "a", "one", ""), Verdict::Yes);
        assert_eq!(get("secrets", "", "watch", "a", "", "metadata.name=one"), Verdict::Yes);
        assert_eq!(get("secrets", "", "get", "a", "two", ""), Verdict::No);
        assert_eq!(get("secrets", "", "get", "b", "one", ""), Verdict::No);
        assert_eq!(get("secrets", "", "list", "a", "", ""), Verdict::No);
        assert_eq!(get("secrets", "", "update", "a", "one", ""), Verdict::No);
        assert_eq!(get("configmaps", "", "get", "a", "map", ""), Verdict::Yes);
        assert_eq!(get("persistentvolumeclaims", "", "get", "a", "claim", ""), Verdict::Yes);
        assert_eq!(get("persistentvolumes", "", "get", "", "pv", ""), Verdict::Yes);
        assert_eq!(get("persistentvolumes", "", "get", "", "other", ""), Verdict::No);
        assert_eq!(get("serviceaccounts", "token", "create", "a", "sa", ""), Verdict::Yes);
        assert_eq!(get("pods", "", "list", "", "", ""), Verdict::No);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName=n1"), Verdict::Yes);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName=n2"), Verdict::No);
        assert_eq!(get("pods", "", "get", "a", "p1", ""), Verdict::Yes);
        assert_eq!(get("pods", "", "get", "a", "p2", ""), Verdict::No);
        assert_eq!(get("pods", "", "list", "", "", "spec.nodeName!=n1"), Verdict::No);
        // One term, whose value has a comma in it.
        assert_eq!(get("pods", "", "list", "", "", "metadata.name!=a\\,spec.nodeName=n1"), Verdict::No);
        assert_eq!(get("services", "", "list", "", "", ""), Verdict::AsRole);
        for verb in ["get", "list", "watch"] {
            assert_eq!(get("nodes", "", verb, "", "n1", ""), Verdict::Yes);
            assert_eq!(get("nodes", "", verb, "", "n2", ""), Verdict::No);
            assert_eq!(get("nodes", "", verb, "", "", ""), Verdict::No);
        }
        assert_eq!(get("nodes", "", "list", "", "", "metadata.name=n1"), Verdict::Yes);
        assert_eq!(get("nodes", "", "list", "", "", "metadata.name!=n1"), Verdict::No);
        assert_eq!(get("nodes", "", "patch", "", "n2", ""), Verdict::No);
        assert_eq!(get("nodes", "status", "patch", "", "n2", ""), Verdict::No);
        assert_eq!(get("nodes", "status", "patch", "", "n1", ""), Verdict::AsRole);
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
        assert_eq!(decide("n1", &wanted, &state), Verdict::No);
    }
}
