//! What of a backup has to be different in another place: other hosts, another range of services' addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bytes::Bytes;
use objects::{AddressLease, FENCED_EPOCH, FENCING, LEASE_EPOCH, STOPS_WITH_LEASE, SWITCH_ON_EPOCH};
use serde_json::Value;

/// Where a backup is restored.
#[derive(Debug)]
pub struct Destination {
    /// The names of the new cluster's hosts.
    pub hosts: BTreeSet<String>,
    /// The first address of its services, a network of 16 bits.
    pub services: Ipv4Addr,
}

impl Destination {
    /// Fits a key; `false` for one that is left out: a host that is no more, its lease, and the pods on it, which
    /// are made anew elsewhere by their controllers.
    pub fn fit(&self, key: &[u8], value: &mut Bytes) -> bool {
        // Who may join as whom is another cluster's business.
        if key == install::REGISTER_KEY.as_bytes() {
            return false;
        }
        let Some(place) = objects::parse(key) else { return true };
        let is_gone = |host: &str| !self.hosts.contains(host);
        match (place.group, place.resource) {
            ("", "nodes") => {
                edit(value, forget_lease);
                !is_gone(place.name)
            }
            ("coordination.k8s.io", "leases") if place.namespace == "kube-node-lease" => !is_gone(place.name),
            ("coordination.k8s.io", "leases") if AddressLease::address_at(key).is_some() => {
                edit(value, let_go);
                true
            }
            ("", "pods") => {
                edit(value, promise_nothing);
                let pod: Value = serde_json::from_slice(value).unwrap_or_default();
                !pod.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(is_gone)
            }
            ("", "services") => {
                if let Some(moved) = self.moved(value) {
                    *value = moved;
                }
                true
            }
            _ => true,
        }
    }

    /// A service with its addresses in this place's range, where they aren't.
    fn moved(&self, value: &[u8]) -> Option<Bytes> {
        let mut service: Value = serde_json::from_slice(value).ok()?;
        let mut changed = false;
        let mut move_here = |address: &mut Value| {
            let Some([_, _, high, low]) = address.as_str().and_then(octets) else { return };
            let [first, second, ..] = self.services.octets();
            let here = Value::from(Ipv4Addr::new(first, second, high, low).to_string());
            changed |= *address != here;
            *address = here;
        };
        let spec = service.get_mut("spec")?.as_object_mut()?;
        if let Some(address) = spec.get_mut("clusterIP") {
            move_here(address);
        }
        for address in spec.get_mut("clusterIPs").and_then(Value::as_array_mut).into_iter().flatten() {
            move_here(address);
        }
        changed.then(|| service.to_string().into())
    }
}

/// Changes a value, where `change` says that it did.
fn edit(value: &mut Bytes, change: impl FnOnce(&mut Value) -> Option<bool>) {
    let Ok(mut object) = serde_json::from_slice::<Value>(value) else { return };
    if change(&mut object) == Some(true) {
        *value = object.to_string().into();
    }
}

/// Makes a Node say nothing of a lease. Its host is another one now, whatever its name, which registers epochs of its own clock. By
/// the old one's words it may be fenced, and promises what nobody keeps.
fn forget_lease(node: &mut Value) -> Option<bool> {
    let annotations = node.pointer_mut("/metadata/annotations")?.as_object_mut()?;
    let before = annotations.len();
    let of_lease = [FENCING, LEASE_EPOCH, FENCED_EPOCH, SWITCH_ON_EPOCH];
    annotations.retain(|name, _| !of_lease.contains(&name.as_str()));
    Some(annotations.len() != before)
}

/// Makes a pod say nothing of the lease with which it was stopped.
fn promise_nothing(pod: &mut Value) -> Option<bool> {
    let conditions = pod.pointer_mut("/status/conditions")?.as_array_mut()?;
    let before = conditions.len();
    conditions.retain(|condition| condition["type"] != STOPS_WITH_LEASE);
    Some(conditions.len() != before)
}

/// Makes the Lease of an address that of an address which nobody holds: its holder held it in an epoch that is over.
fn let_go(lease: &mut Value) -> Option<bool> {
    lease.get_mut("spec")?.as_object_mut()?.remove("holderIdentity").map(|_| true)
}

fn octets(text: &str) -> Option<[u8; 4]> {
    text.parse().ok().map(|address: Ipv4Addr| address.octets())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place() -> Destination {
        Destination { hosts: ["n1".to_owned()].into(), services: Ipv4Addr::new(127, 96, 0, 1) }
    }

    #[test]
    fn what_was_of_hosts_that_are_no_more_is_left_out() {
        let pod = |node: &str| format!(r#"{{"kind":"Pod","spec":{{"nodeName":"{node}"}}}}"#);
        for (key, value, kept) in [
            ("/registry/core/nodes/n1", String::new(), true),
            ("/registry/core/nodes/n2", String::new(), false),
            ("/registry/coordination.k8s.io/leases/kube-node-lease/n2", String::new(), false),
            ("/registry/coordination.k8s.io/leases/default/n2", String::new(), true),
            ("/registry/core/pods/default/a", pod("n1"), true),
            ("/registry/core/pods/default/b", pod("n2"), false),
            ("/registry/core/pods/default/c", r#"{"kind":"Pod","spec":{}}"#.into(), true),
            ("/registry/core/secrets/default/n2", "not json".into(), true),
            ("/elsewhere", String::new(), true),
            (install::REGISTER_KEY, String::new(), false),
        ] {
            let mut after = Bytes::from(value.clone());
            assert_eq!(place().fit(key.as_bytes(), &mut after), kept, "{key}");
            assert_eq!(after, value);
        }
    }

    #[test]
    fn nobody_goes_on_with_the_epoch_of_a_host_that_had_its_name() {
        for (key, before, after) in [
            (
                "/registry/core/nodes/n1",
                json!({"metadata": {"annotations": {"a": "b", FENCED_EPOCH: "7", FENCING: "lease", LEASE_EPOCH: "7", SWITCH_ON_EPOCH: "7"}}}),
                json!({"metadata": {"annotations": {"a": "b"}}}),
            ),
            (
                "/registry/core/pods/default/a",
                json!({"spec": {"nodeName": "n1"}, "status": {"conditions": [{"type": STOPS_WITH_LEASE}, {"type": "Ready"}]}}),
                json!({"spec": {"nodeName": "n1"}, "status": {"conditions": [{"type": "Ready"}]}}),
            ),
            (
                "/registry/coordination.k8s.io/leases/kube-system/load-balancer-10.0.0.7",
                json!({"spec": {"holderIdentity": "n1", "leaseTransitions": 3}}),
                json!({"spec": {"leaseTransitions": 3}}),
            ),
            (
                "/registry/coordination.k8s.io/leases/kube-system/another",
                json!({"spec": {"holderIdentity": "n1"}}),
                json!({"spec": {"holderIdentity": "n1"}}),
            ),
        ] {
            for before in [&before, &after] {
                let mut value = Bytes::from(before.to_string());
                assert!(place().fit(key.as_bytes(), &mut value), "{key}");
                assert_eq!(serde_json::from_slice::<Value>(&value).unwrap(), after, "{key}");
            }
        }
    }

    #[test]
    fn services_keep_their_number_in_the_new_range() {
        let key = b"/registry/core/services/default/web";
        for (before, after) in [
            (
                r#"{"spec":{"clusterIP":"10.96.3.7","clusterIPs":["10.96.3.7"],"type":"ClusterIP"}}"#,
                r#"{"spec":{"clusterIP":"127.96.3.7","clusterIPs":["127.96.3.7"],"type":"ClusterIP"}}"#,
            ),
            (r#"{"spec": {"clusterIP":"127.96.0.1"}}"#, r#"{"spec": {"clusterIP":"127.96.0.1"}}"#),
            (r#"{"spec":{"clusterIP":"None"}}"#, r#"{"spec":{"clusterIP":"None"}}"#),
            (r#"{"spec":{"type":"ExternalName"}}"#, r#"{"spec":{"type":"ExternalName"}}"#),
        ] {
            let mut value = Bytes::from(before);
            assert!(place().fit(key, &mut value));
            assert_eq!(value, after);
        }
    }
}
