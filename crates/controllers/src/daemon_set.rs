//! DaemonSets: one pod on every host that is meant, while hosts come and go.
//!
//! Follows `pkg/controller/daemon`: which hosts are meant, that a pod is bound to its host by the name of the node (the
//! scheduler places it), rolling updates within `maxUnavailable` or `maxSurge` (KEP-1591), revisions, what becomes of
//! pods that ended, the status. One reconciliation walks the hosts and the set's pods once.

mod failures;
mod fleet;
mod placement;
mod revisions;
mod rolling;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Change, Pod};

use crate::claim::claim;
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Orphans, Owner};
use crate::kept::{ControllerRevision, DaemonSet, Node};
use crate::key::Key;
use crate::plan::Plan;
use crate::selectors::{Selector, Selectors, Selects};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use failures::Failures;
use fleet::Fleet;
use placement::{Eligibility, tolerations};
use revisions::Revisions;

/// How long the next look waits, for each host: while thousands of pods come, it is for many of them.
const PAUSE: Duration = Duration::from_micros(10);

/// Gives every host that is meant the pod of a DaemonSet.
pub(crate) struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn component(&self) -> &'static str {
        "daemonset-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.index::<Selectors<DaemonSets>>();
        watches.index::<Failures>();
        watches.index::<By<Owner<Pod>>>();
        watches.index::<By<Orphans<Pod>>>();
        watches.index::<By<Owner<ControllerRevision>>>();
        watches.index::<By<Orphans<ControllerRevision>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<DaemonSet>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(change.of::<DaemonSet>().into_iter().flat_map(both));
        if let Some(change) = change.of::<Node>() {
            due.objects(view.table::<DaemonSet>().iter().filter(|set| is_told_otherwise(set, change)));
        }
        let pods = change.of::<Pod>().into_iter().flat_map(both).map(|pod| &pod.metadata);
        let revisions =
            change.of::<ControllerRevision>().into_iter().flat_map(both).map(|kept| &kept.metadata);
        for metadata in pods.chain(revisions) {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(metadata) {
                Some(owner) if owner.kind == "DaemonSet" => due.now(namespace, &owner.name),
                Some(_) => {}
                None => {
                    let sets = view.index::<Selectors<DaemonSets>>().into_iter();
                    due.objects(sets.flat_map(|sets| sets.of(namespace, metadata.labels.as_deref())));
                }
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

impl Selects for DaemonSets {
    type Of = DaemonSet;

    fn selector(set: &DaemonSet) -> Option<Selector<'_>> {
        set.spec.as_ref().map(|spec| Selector::Full(&spec.selector))
    }
}

/// Whether a change of a node is one of what a set wants of it. Most are none: a host that says that it is well.
fn is_told_otherwise(set: &DaemonSet, change: &Change<Node>) -> bool {
    let (old, new) = (change.old.as_deref(), change.new.as_deref());
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    if let (Some(old), Some(new)) = (old, new)
        && old.metadata.labels == new.metadata.labels
        && taints(old) == taints(new)
    {
        return false;
    }
    let Some(spec) = &set.spec else { return false };
    let placement = &spec.template.placement;
    let borne = tolerations(placement);
    let eligibility =
        |node: Option<&Node>| node.map(|node| Eligibility::of(placement, &borne, node)).unwrap_or_default();
    eligibility(old) != eligibility(new)
}

/// Brings one DaemonSet nearer to its spec.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = view.table::<DaemonSet>().get(namespace, name) else { return plan };
    let (Some(spec), Some(stored)) = (&set.spec, view.json(set.as_ref())) else { return plan };
    if set.metadata.deletion_timestamp.is_some() || !view.is_open(namespace) {
        return plan;
    }
    let pods: Vec<&Arc<Pod>> = claim(view, set.as_ref(), &spec.selector, |_: &Pod| true, &mut plan);
    let revisions = Revisions::of(view, set, spec, &mut plan);
    let hash = revisions.keep(view, &stored, &pods, &mut plan);
    let fleet = Fleet::new(view, set, spec, &pods, hash.name, now);
    plan.pause = PAUSE * u32::try_from(fleet.hosts.len()).unwrap_or(u32::MAX);
    // Pods are made once the revision is there that they name.
    if hash.is_kept {
        let mut changes = fleet.manage(view, &mut plan);
        if changes.is_empty() {
            changes = rolling::step(&fleet);
        }
        fleet.write(changes, &stored, &mut plan);
        revisions.clean_up(&pods, &mut plan);
    }
    status::report(&fleet, &stored, hash.collisions, &mut plan);
    plan
}
