//! StatefulSets: pods with a name, a host name and volumes of their own each, which their replacements take over.
//!
//! Follows `pkg/controller/statefulset`: in which order pods come and go, rolling updates with a partition,
//! start ordinals (KEP-3335), claims and what becomes of them (KEP-1847), revisions, status.
//!
//! There are never two pods of one name: one is made when the API has none of that name any more, and the API forgets none
//! whose host hasn't said that it ended. What makes it forget pods of dead hosts leaves these alone (see [`crate::node`]).

mod claims;
mod identity;
mod revisions;
mod status;
mod steps;

use std::sync::Arc;

use jiff::Timestamp;
use objects::Pod;

use crate::claim::claim;
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::graph::Vertex;
use crate::index::{By, Orphans, Owner};
use crate::kept::{ControllerRevision, StatefulSet, StatefulSetSpec};
use crate::key::Key;
use crate::plan::Plan;
use crate::selectors::{Selector, Selectors, Selects};
use crate::tables::Watches;
use crate::touched::{Owned, Touched};
use crate::view::{View, controller_of};
use revisions::Revisions;
use steps::Steps;

/// Gives StatefulSets their pods.
pub(crate) struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn component(&self) -> &'static str {
        "statefulset-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<Selectors<StatefulSets>>();
        watches.index::<By<Owner<Pod>>>();
        watches.index::<By<Orphans<Pod>>>();
        watches.index::<By<Owner<ControllerRevision>>>();
        watches.index::<By<Orphans<ControllerRevision>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<StatefulSet>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(change.of::<StatefulSet>().into_iter().flat_map(both));
        let pods = change.of::<Pod>().into_iter().flat_map(both).map(|pod| &pod.metadata);
        let revisions =
            change.of::<ControllerRevision>().into_iter().flat_map(both).map(|kept| &kept.metadata);
        for metadata in pods.chain(revisions) {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(metadata) {
                Some(owner) if owner.kind == "StatefulSet" => due.now(namespace, &owner.name),
                Some(_) => {}
                None => {
                    let sets = view.index::<Selectors<StatefulSets>>().into_iter();
                    due.objects(sets.flat_map(|sets| sets.of(namespace, metadata.labels.as_deref())));
                }
            }
        }
        let claim = change.owned().latest().filter(|node| &*node.kind == "PersistentVolumeClaim");
        if let Some(claim) = claim.filter(|_| came_or_goes(change.owned())) {
            due.objects(sets_of_claim(view, claim));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

impl Selects for StatefulSets {
    type Of = StatefulSet;

    fn selector(set: &StatefulSet) -> Option<Selector<'_>> {
        set.spec.as_ref().map(|spec| Selector::Full(&spec.selector))
    }
}

fn came_or_goes(owned: &Owned) -> bool {
    owned.old.is_none() || !owned.same_end() || !owned.same_owners()
}

/// The sets of which a claim may be, by its name alone: the names of template and set may both have hyphens.
fn sets_of_claim<'a>(view: &'a View, claim: &'a Vertex) -> impl Iterator<Item = &'a Arc<StatefulSet>> {
    let (name, _) = identity::parse(claim.name()).unwrap_or_default();
    let sets = name.match_indices('-').map(move |(at, _)| &name[at + 1..]);
    sets.filter_map(|set| view.table::<StatefulSet>().get(&claim.namespace, set))
}

/// A StatefulSet as one reconciliation sees it.
struct Set<'a> {
    view: &'a View,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    stored: &'a serde_json::Value,
    now: Timestamp,
}

impl Set<'_> {
    /// Whether pods may be made and deleted: neither the set nor its namespace is being deleted.
    fn is_open(&self) -> bool {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        self.set.metadata.deletion_timestamp.is_none() && self.view.is_open(namespace)
    }
}

/// Brings one StatefulSet nearer to its spec.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = view.table::<StatefulSet>().get(namespace, name) else { return plan };
    let (Some(spec), Some(stored)) = (&set.spec, view.json(set.as_ref())) else { return plan };
    let is_member = |pod: &Pod| identity::ordinal(set, pod).is_some();
    let pods: Vec<&Arc<Pod>> = claim(view, set.as_ref(), &spec.selector, is_member, &mut plan);
    let set = Set { view, set, spec, stored: &stored, now };
    // Pods are made once the revision is there that they name.
    let Some(revisions) = Revisions::of(&set, &mut plan) else { return plan };
    if set.is_open() {
        Steps::new(&set, &revisions, &pods).take(&mut plan);
        revisions.clean_up(&set, &pods, &mut plan);
    }
    status::report(&set, &revisions, &pods, &mut plan);
    plan
}
