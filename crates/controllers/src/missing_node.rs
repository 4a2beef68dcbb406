//! Pods whose node no longer exists: `gcOrphaned` of `pkg/controller/podgc`.

use std::time::Duration;

use objects::{Change, Delete, Pod, Write};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Plan, subject};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// How long a node may be missing before its pods are removed: it may just be registering anew. Upstream's
/// `quarantineTime` of the collector of pods.
pub const QUARANTINE: Duration = Duration::from_secs(40);

/// Removes the pods of nodes that do not exist.
pub(crate) struct MissingNodes;

impl Controller for MissingNodes {
    fn name(&self) -> &'static str {
        "missing-node"
    }

    fn component(&self) -> &'static str {
        "garbage-collector"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<By<OnNode>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let used = view.index::<By<OnNode>>().into_iter().flat_map(By::values);
        for name in used.filter(|name| view.table::<Node>().get("", name).is_none()) {
            due.later("", name, QUARANTINE);
        }
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(Change { old: Some(node), new: None, .. }) = change.of::<Node>() {
            due.later("", node.metadata.name.as_deref().unwrap_or_default(), QUARANTINE);
        }
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        if let Some(name) = pod.and_then(|pod| pod.node())
            && view.table::<Node>().get("", name).is_none()
        {
            due.later("", name, QUARANTINE);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.name())
    }
}

/// Removes the pods of a node that does not exist (to be asked after [`QUARANTINE`]).
fn reconcile(view: &View, node: &str) -> Plan {
    let mut plan = Plan::default();
    if view.table::<Node>().get("", node).is_none() {
        for pod in view.by::<OnNode>(node) {
            let options =
                Delete { uid: pod.metadata.uid.clone(), grace_seconds: Some(0), ..Delete::default() };
            plan.write(Write::Delete { subject: subject(pod.as_ref()), options });
        }
    }
    plan
}
