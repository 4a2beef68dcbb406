//! Deployments: rolling from one pod template to the next.
//!
//! Follows `pkg/controller/deployment`: which ReplicaSet is the new one, how many pods each may have at
//! every step, revisions, history, conditions. One reconciliation decides on all its ReplicaSets at once.

mod rolling;
mod rollout;
mod scaling;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Change, Pod};

use crate::claim::claim;
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Orphans, Owner};
use crate::kept::{Deployment, ReplicaSet};
use crate::key::Key;
use crate::plan::Plan;
use crate::pods;
use crate::replicas::Replicas;
use crate::selectors::{Selector, Selectors, Selects};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use rollout::Rollout;

/// How long a step waits after the last one, for each pod: while thousands come and go, a step is for many of them.
const PAUSE: Duration = Duration::from_micros(5);

/// Rolls Deployments from one pod template to the next.
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn component(&self) -> &'static str {
        "deployment-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<Selectors<Deployments>>();
        watches.index::<Replicas>();
        watches.index::<By<Orphans<ReplicaSet>>>();
        watches.index::<By<Owner<ReplicaSet>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Deployment>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Deployment>(change);
        for set in change.of::<ReplicaSet>().into_iter().flat_map(both) {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(&set.metadata) {
                Some(owner) => due.now(namespace, &owner.name),
                None => {
                    let labels = set.metadata.labels.as_deref();
                    let deployments = view.index::<Selectors<Deployments>>().into_iter();
                    due.objects(deployments.flat_map(|index| index.of(namespace, labels)));
                }
            }
        }
        let is_active = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| pods::is_active(pod));
        // It counts pods: those that make room, and with the strategy Recreate their end.
        let counts =
            |change: &&Change<Pod>| change.new.is_none() || is_active(&change.old) != is_active(&change.new);
        for pod in change.of::<Pod>().filter(counts).into_iter().flat_map(both) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
            let set = owner.and_then(|owner| view.table::<ReplicaSet>().get(namespace, &owner.name));
            if let Some(deployment) = set.and_then(|set| controller_of(&set.metadata)) {
                due.now(namespace, &deployment.name);
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

impl Selects for Deployments {
    type Of = Deployment;

    fn selector(deployment: &Deployment) -> Option<Selector<'_>> {
        deployment.spec.as_ref().map(|spec| Selector::Full(&spec.selector))
    }
}

/// Brings one Deployment nearer to its spec.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = view.table::<Deployment>().get(namespace, name) else { return plan };
    let (Some(spec), Some(stored)) = (&deployment.spec, view.json(deployment.as_ref())) else { return plan };
    let sets = claim(view, deployment.as_ref(), &spec.selector, |_: &ReplicaSet| true, &mut plan);
    let mut rollout = Rollout::new(view, deployment, spec, &stored, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() || !view.is_open(namespace) {
        status::report(&mut rollout, &mut plan, false);
        return plan;
    }
    plan.pause = PAUSE * u32::try_from(rollout.replicas).unwrap_or(0);
    let paused = spec.paused == Some(true);
    rollout.sync_revision();
    let scaled = rollout.is_scaled();
    if paused || scaled {
        scaling::scale(&mut rollout);
    } else if rollout.is_recreate() {
        if rollout.retire_old() && !has_running_old_pods(view, &rollout) {
            rollout.create_new(view, &mut plan);
            rollout.grow_new_to(rollout.replicas);
        }
    } else {
        rollout.create_new(view, &mut plan);
        rolling::step(&mut rollout);
    }
    let untouched = !rollout.is_changed() && plan.actions.is_empty();
    if untouched && (paused || status::is_complete(&rollout)) {
        rollout.clean_up(&mut plan);
    }
    status::report(&mut rollout, &mut plan, !paused && !scaled);
    rollout.write(&mut plan);
    plan
}

/// Whether a pod of an old set may still run: with the strategy Recreate no new one starts before it ended.
fn has_running_old_pods(view: &View, rollout: &Rollout<'_>) -> bool {
    rollout.old().any(|set| {
        let uid = set.set.metadata.uid.as_deref().unwrap_or_default();
        let namespace = set.set.metadata.namespace.as_deref().unwrap_or_default();
        let kept = view.index::<Replicas>().map(|kept| kept.total(namespace, uid));
        kept.is_some_and(|count| count.active + count.terminating > 0)
    })
}
