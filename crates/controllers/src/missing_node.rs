//! Pods whose node no longer exists: `gcOrphaned` of `pkg/controller/podgc`.

use std::time::Duration;

use objects::{Delete, Write};

use crate::plan::{Plan, subject};
use crate::view::View;

/// How long a node may be missing before its pods are removed: it may just be registering anew.
pub const QUARANTINE: Duration = Duration::from_secs(40);

/// Removes the pods of a node that does not exist (to be asked after [`QUARANTINE`]).
pub fn reconcile(view: &View, node: &str) -> Plan {
    let mut plan = Plan::default();
    if view.nodes.get("", node).is_none() {
        for pod in view.pods_on(node) {
            let options =
                Delete { uid: pod.metadata.uid.clone(), grace_seconds: Some(0), ..Delete::default() };
            plan.write(Write::Delete { subject: subject(pod.as_ref()), options });
        }
    }
    plan
}
