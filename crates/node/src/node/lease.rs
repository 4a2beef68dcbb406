//! The host's lease in `kube-node-lease`, by which other programs see that its agent lives. Nothing here decides by it:
//! hosts know of each other from heartbeats.
//!
//! Follows `k8s.io/component-helpers/apimachinery/lease` with the kubelet's numbers.

use std::time::Duration;

use jiff::Timestamp;
use machinery::Object;
use objects::{TypedRef, Write};
use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "kube-node-lease";
/// After this long without a renewal, readers of the lease take the host for dead: the kubelet's
/// `nodeLeaseDurationSeconds`.
const SECONDS: i64 = 40;
/// Renewed once it is this old: a quarter of its time, so that three renewals in a row may fail.
const RENEW: Duration = Duration::from_secs(10);

/// The change that makes the lease say that the agent of `node` lives, if one is due: `uid` is that of its Node, `stored`
/// the lease as it is.
pub(crate) fn due(node: &str, uid: &str, stored: Option<&Value>, now: Timestamp) -> Option<Write> {
    let renewed = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let owners = json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]);
    let Some(stored) = stored else {
        return Object::from_value(json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": node, "namespace": NAMESPACE, "ownerReferences": owners},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": SECONDS, "renewTime": renewed},
        }))
        .map(Write::Create);
    };
    let spec = &stored["spec"];
    let owned = stored.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str) == Some(uid);
    let same = owned && spec["holderIdentity"] == node && spec["leaseDurationSeconds"] == SECONDS;
    let fresh = spec["renewTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| {
        let age = now.duration_since(at);
        // A time in the future is another clock's: renewed too. Looks come a little early or late.
        age.as_secs() >= -5 && age.unsigned_abs() + Duration::from_millis(500) < RENEW
    });
    if same && fresh {
        return None;
    }
    let mut patch = json!({"spec": {"renewTime": renewed}});
    if !same {
        patch["spec"]["holderIdentity"] = node.into();
        patch["spec"]["leaseDurationSeconds"] = SECONDS.into();
        patch["metadata"]["ownerReferences"] = owners;
    }
    let subject = TypedRef {
        api_version: "coordination.k8s.io/v1".into(),
        kind: "Lease".into(),
        namespace: NAMESPACE.into(),
        name: node.to_owned(),
    };
    Some(Write::Merge { subject, subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_lease_is_renewed_every_ten_seconds_and_set_right() {
        let Some(Write::Create(lease)) = due("n1", "u", None, at(0)) else { panic!("none is made") };
        let lease = lease.into_value();
        assert_eq!(lease["spec"]["renewTime"], "2027-01-15T08:00:00.000000Z");
        assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u", "it goes with its node");
        assert_eq!(due("n1", "u", Some(&lease), at(9_000)), None);
        let patch = |lease: &Value, uid: &str, now| match due("n1", uid, Some(lease), now) {
            Some(Write::Merge { patch, .. }) => patch,
            other => panic!("{other:?}"),
        };
        let renewed = json!({"spec": {"renewTime": "2027-01-15T08:00:09.900000Z"}});
        assert_eq!(patch(&lease, "u", at(9_900)), renewed, "nothing else is written");
        patch(&lease, "u", at(-60_000));
        assert_eq!(patch(&lease, "v", at(1))["metadata"]["ownerReferences"][0]["uid"], "v");
        let mut other = lease.clone();
        other["spec"]["holderIdentity"] = "n2".into();
        assert_eq!(patch(&other, "u", at(1))["spec"]["holderIdentity"], "n1");
    }
}
