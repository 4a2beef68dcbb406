//! Jobs: pods that run to an end, until enough of them have succeeded.
//!
//! Follows `pkg/controller/job`: indexed completion (KEP-2214), suspension (KEP-2232), tracking with finalizers (KEP-2307),
//! failure policy (KEP-3329), limits for each index (KEP-3850), replacement policy (KEP-3939), success policy (KEP-3998),
//! management by others (KEP-4368). What upstream does in one go in several writes is decided here in several rounds, each
//! by what the one before it stored: see [`counting`] and [`sizing`].

mod counting;
mod failure_policy;
mod indexes;
mod kind;
mod making;
mod members;
mod outcome;
mod retry;
mod round;
mod sizing;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Meta, Pod, selects};
use serde_json::{Value, json};

use crate::claim::is_everything;
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Orphans, with_labels};
use crate::key::Key;
use crate::plan::{Plan, merge_this};
use crate::pod_writes::owner_reference;
use crate::pods;
use crate::selectors::{Selector, Selectors, Selects, required};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};
use kind::JobSpec;
use members::{FINALIZER, Unsettled, is_of_job, is_tracked, place, untrack};
use retry::Ends;
use round::Round;

pub(crate) use kind::{Job, end};

/// How long a Job rests for each of its pods: while thousands start and end, a round is for many of them.
const PAUSE: Duration = Duration::from_micros(20);

/// Runs the pods of Jobs to their ends.
pub(crate) struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn component(&self) -> &'static str {
        "job-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<Selectors<Jobs>>();
        watches.index::<By<Unsettled>>();
        watches.index::<By<Orphans<Pod>>>();
        watches.index::<Ends>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Job>().iter());
        // Jobs that are gone may have left pods with the finalizer.
        let places = view.index::<By<Unsettled>>().into_iter().flat_map(By::values);
        places
            .filter_map(|place| place.split_once('\0'))
            .for_each(|(namespace, name)| due.now(namespace, name));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Job>(change);
        for pod in change.of::<Pod>().into_iter().flat_map(both) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let owner = controller_of(&pod.metadata);
            match owner {
                Some(owner) if is_of_job(owner) => due.now(namespace, &owner.name),
                _ if is_tracked(pod) => due.now(namespace, ""),
                _ => {}
            }
            if owner.is_none() {
                let jobs = view.index::<Selectors<Jobs>>().into_iter();
                due.objects(jobs.flat_map(|jobs| jobs.of(namespace, pod.metadata.labels.as_deref())));
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        match key.name() {
            "" => free_strays(view, key.namespace()),
            name => reconcile(view, key.namespace(), name, moment.now.wall),
        }
    }
}

impl Selects for Jobs {
    type Of = Job;

    fn selector(job: &Job) -> Option<Selector<'_>> {
        let selector = &job.spec.as_ref()?.selector;
        (!is_everything(selector)).then_some(Selector::Full(selector))
    }
}

/// Takes the finalizer from the pods of a namespace that have no Job any more, and will get none.
fn free_strays(view: &View, namespace: &str) -> Plan {
    let mut plan = Plan::default();
    for pod in view.by::<Unsettled>(&place(namespace, "")) {
        let jobs = view.index::<Selectors<Jobs>>().into_iter();
        let mut jobs = jobs.flat_map(|jobs| jobs.of(namespace, pod.metadata.labels.as_deref()));
        let adopts = |job: &Arc<Job>| job.metadata.deletion_timestamp.is_none() && end(job).is_none();
        if controller_of(&pod.metadata).is_some() || !pods::is_active(pod) || !jobs.any(adopts) {
            plan.write(untrack(pod));
        }
    }
    plan
}

/// Brings one Job nearer to its end.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let job = view.table::<Job>().get(namespace, name);
    let uid = job.and_then(|job| job.metadata.uid.as_deref());
    let is_own = |pod: &&Arc<Pod>| controller_of(&pod.metadata).map(|owner| owner.uid.as_str()) == uid;
    let (own, strangers): (Vec<_>, Vec<_>) = view.by::<Unsettled>(&place(namespace, name)).partition(is_own);
    // Nobody counts the pods of a Job that is gone.
    strangers.into_iter().filter(|pod| is_tracked(pod)).for_each(|pod| plan.write(untrack(pod)));
    let Some((job, spec)) = job.and_then(|job| Some((job, job.spec.as_ref()?))) else { return plan };
    if spec.is_of_another() {
        return plan;
    }
    if end(job).is_some() {
        own.into_iter().filter(|pod| is_tracked(pod)).for_each(|pod| plan.write(untrack(pod)));
        return plan;
    }
    let claims = plan.actions.len();
    claim(view, job, spec, &own, &mut plan);
    if plan.actions.len() > claims {
        return plan;
    }
    plan.pause = PAUSE * u32::try_from(own.len()).unwrap_or(u32::MAX);
    Round::new(view, job, spec, own, now).run(&mut plan);
    plan
}

/// Adopts orphans that the selector means, and releases pods that it no longer means. What follows from that, the next
/// round sees.
fn claim(view: &View, job: &Job, spec: &JobSpec, own: &[&Arc<Pod>], plan: &mut Plan) {
    if job.metadata.deletion_timestamp.is_some() || is_everything(&spec.selector) {
        return;
    }
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let null_if_none = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    for pod in own.iter().filter(|pod| !selects(&spec.selector, pod.metadata.labels.as_deref())) {
        let owners = pod.metadata.owners().iter().filter(|owner| owner.uid != uid);
        let finalizers = pod.metadata.finalizers.iter().flatten().filter(|name| *name != FINALIZER);
        let patch = json!({"metadata": {
            "ownerReferences": null_if_none(owners.map(|owner| json!(owner)).collect()),
            "finalizers": null_if_none(finalizers.map(|name| json!(name)).collect()),
        }});
        plan.write(merge_this(pod.as_ref(), "", patch));
    }
    let orphans = with_labels::<Orphans<Pod>>(view, namespace, required(&spec.selector));
    let means =
        |pod: &&Arc<Pod>| pods::is_active(pod) && selects(&spec.selector, pod.metadata.labels.as_deref());
    for pod in orphans.filter(means) {
        let mut owners = pod.metadata.owners().to_vec();
        owners.push(owner_reference(job));
        let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
        if !is_tracked(pod) {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {"ownerReferences": owners, "finalizers": finalizers}});
        plan.write(merge_this(pod.as_ref(), "", patch));
    }
}
