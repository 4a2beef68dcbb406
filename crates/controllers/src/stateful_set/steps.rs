//! The next steps of a StatefulSet: which pods are made, mended and deleted (`updateStatefulSet` of
//! `stateful_set_control.go`).

use std::sync::Arc;

use k8s_openapi::api::apps::v1::RollingUpdateStatefulSetStrategy;
use machinery::Object;
use objects::{Occurrence, Pod, Write};

use super::Set;
use super::claims::{self, Hindrance};
use super::identity::{self, pod_name};
use super::revisions::Revisions;
use crate::plan::{Action, Note, Plan, delete, merge_this};
use crate::pods;

/// The most pods that one reconciliation makes, and gives up; the next one goes on. As many as a ReplicaSet's.
const BURST: usize = 500;

/// What is done about one pod may let those after it wait.
#[derive(PartialEq)]
enum Then {
    GoOn,
    Wait,
}

/// A StatefulSet with its pods in their order.
pub(super) struct Steps<'a> {
    set: &'a Set<'a>,
    revisions: &'a Revisions<'a>,
    /// Every ordinal that the set shall have, with its pod.
    replicas: Vec<(i32, Option<&'a Arc<Pod>>)>,
    /// The pods of other ordinals, the highest first.
    condemned: Vec<(i32, &'a Arc<Pod>)>,
    /// Whether pods come and go one after the other (`OrderedReady`).
    in_order: bool,
}

impl<'a> Steps<'a> {
    pub fn new(set: &'a Set<'a>, revisions: &'a Revisions<'a>, pods: &[&'a Arc<Pod>]) -> Self {
        let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let end = start.saturating_add(set.spec.replicas.unwrap_or(1).max(0));
        // However many are asked for, no more are looked at than a reconciliation may get on with.
        let looked_at = i32::try_from(pods.len() + BURST).unwrap_or(i32::MAX);
        let ordinals = start..end.min(start.saturating_add(looked_at));
        let mut replicas: Vec<(i32, Option<&Arc<Pod>>)> = ordinals.map(|ordinal| (ordinal, None)).collect();
        let mut condemned = Vec::new();
        for pod in pods {
            let Some(ordinal) = identity::ordinal(set.set, pod) else { continue };
            if !(start..end).contains(&ordinal) {
                condemned.push((ordinal, *pod));
            } else if let Some(place) =
                usize::try_from(ordinal - start).ok().and_then(|at| replicas.get_mut(at))
            {
                place.1 = Some(*pod);
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        let in_order = set.spec.pod_management_policy.as_deref() != Some("Parallel");
        Steps { set, revisions, replicas, condemned, in_order }
    }

    /// Takes the next steps: first what shall be there, then what shall not, then the update.
    pub fn take(&self, plan: &mut Plan) {
        let before = plan.actions.len();
        for (ordinal, pod) in &self.replicas {
            let then = match pod {
                Some(pod) => self.keep(*ordinal, pod, plan),
                None => self.make(*ordinal, plan),
            };
            if then == Then::Wait && self.in_order || plan.actions.len() - before >= BURST {
                return;
            }
        }
        for (ordinal, pod) in &self.condemned {
            claims::set_owners(self.set, *ordinal, Some(pod), false, plan);
        }
        if self.condemned.iter().any(|(_, pod)| self.give_up(pod, plan) == Then::Wait && self.in_order) {
            return;
        }
        self.update(plan);
    }

    /// Makes the pod of an ordinal, once its claims are there.
    fn make(&self, ordinal: i32, plan: &mut Plan) -> Then {
        if claims::are_stale(self.set, ordinal) {
            return Then::Wait;
        }
        match claims::make_missing(self.set, ordinal, plan) {
            Ok(()) => {}
            Err(Hindrance::Waits) => return Then::Wait,
            Err(Hindrance::IsDeleted(claim)) => {
                let why = format!("pvc {claim} is being deleted");
                plan.told.push(self.failed("create", "FailedCreate", &pod_name(self.set.set, ordinal), &why));
                return Then::Wait;
            }
        }
        claims::set_owners(self.set, ordinal, None, true, plan);
        plan.actions.extend(self.creation(ordinal));
        Then::Wait
    }

    fn creation(&self, ordinal: i32) -> Option<Action> {
        let (template, revision) = match self.needs_current(ordinal) {
            true => (&self.revisions.current_template, self.revisions.current),
            false => (&self.set.stored["spec"]["template"], self.revisions.update),
        };
        let pod = identity::pod(self.set, template, revision, ordinal)?;
        let name = pod_name(self.set.set, ordinal);
        let namespace = self.set.set.metadata.namespace.as_deref().unwrap_or_default();
        let mut action = Action::from(Write::Create(Object::from_value(pod)?))
            .telling(Note::Timeline {
                what: "pod-created",
                subject: format!("{namespace}/{name}"),
                pod: None,
            })
            .telling(Note::Event(self.succeeded("create", "SuccessfulCreate", &name)));
        action.refused = Some(self.failed("create", "FailedCreate", &name, "{}"));
        Some(action)
    }

    /// Whether a new pod of an ordinal is of the current revision, and not yet of the template.
    fn needs_current(&self, ordinal: i32) -> bool {
        if !self.rolls() {
            return false;
        }
        let held_back = match self.rolling() {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => {
                let status = self.set.set.status.as_ref();
                status.and_then(|status| status.current_replicas).unwrap_or(0)
            }
        };
        let start = self.replicas.first().map_or(0, |(start, _)| *start);
        ordinal < start.saturating_add(held_back)
    }

    /// Sees to a pod that is there: one that ended goes, one that lacks something gets it.
    fn keep(&self, ordinal: i32, pod: &Arc<Pod>, plan: &mut Plan) -> Then {
        if pods::is_finished(pod) {
            if pod.metadata.deletion_timestamp.is_none() {
                plan.actions.push(self.deletion(pod));
            }
            return Then::Wait;
        }
        if matches!(pods::phase(pod), "" | "Pending")
            && claims::make_missing(self.set, ordinal, plan).is_err()
        {
            return Then::Wait;
        }
        if self.in_order && (pod.metadata.deletion_timestamp.is_some() || !self.set.is_available(pod)) {
            return Then::Wait;
        }
        claims::set_owners(self.set, ordinal, Some(pod), true, plan);
        if let Some(patch) = identity::lacking(self.set, pod, ordinal) {
            let name = pod_name(self.set.set, ordinal);
            let mut action = Action::from(merge_this(pod.as_ref(), "", patch))
                .telling(Note::Event(self.succeeded("update", "SuccessfulUpdate", &name)));
            action.refused = Some(self.failed("update", "FailedUpdate", &name, "{}"));
            plan.actions.push(action);
        }
        Then::GoOn
    }

    /// Deletes a pod whose ordinal the set no longer has. In order, all others must serve, but for the one that is given up.
    fn give_up(&self, pod: &Arc<Pod>, plan: &mut Plan) -> Then {
        if pod.metadata.deletion_timestamp.is_some() {
            return Then::Wait;
        }
        if !self.in_order || self.set.is_available(pod) || self.is_first_unavailable(pod) {
            plan.actions.push(self.deletion(pod));
        }
        Then::Wait
    }

    /// Whether a pod is the one with the lowest ordinal of those that don't serve; replicas come before the condemned.
    fn is_first_unavailable(&self, pod: &Arc<Pod>) -> bool {
        let replicas = self.replicas.iter().map(|(_, pod)| *pod);
        let condemned = self.condemned.iter().rev().map(|(_, pod)| Some(*pod));
        let first = replicas.chain(condemned).find(|pod| pod.is_none_or(|pod| self.is_missing(pod)));
        first.flatten().is_some_and(|first| Arc::ptr_eq(first, pod))
    }

    fn is_missing(&self, pod: &Pod) -> bool {
        pod.metadata.deletion_timestamp.is_some() || !self.set.is_available(pod)
    }

    /// Deletes the highest pod that is of another revision than the template, once those above it serve. (Upstream has
    /// `maxUnavailable`, by which there may be several, switched off: the API drops it.)
    fn update(&self, plan: &mut Plan) {
        if !self.rolls() {
            return;
        }
        let partition = self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0);
        let held_back = usize::try_from(partition).unwrap_or(0);
        for (_, pod) in self.replicas.iter().skip(held_back).rev() {
            let Some(pod) = pod else { return };
            let is_leaving = pod.metadata.deletion_timestamp.is_some();
            if !is_leaving && identity::revision(pod) != Some(self.revisions.update) {
                return plan.actions.push(self.deletion(pod));
            }
            if self.is_missing(pod) {
                return;
            }
        }
    }

    fn rolls(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn rolling(&self) -> Option<&RollingUpdateStatefulSetStrategy> {
        self.set.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn deletion(&self, pod: &Pod) -> Action {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let told = self.succeeded("delete", "SuccessfulDelete", name);
        let mut action = Action::from(delete(pod)).telling(Note::Event(told));
        action.refused = Some(self.failed("delete", "FailedDelete", name, "{}"));
        action
    }

    fn succeeded(&self, verb: &str, reason: &'static str, pod: &str) -> Occurrence {
        let set = self.set.set.metadata.name.as_deref().unwrap_or_default();
        Occurrence::of(
            self.set.set,
            false,
            reason,
            format!("{verb} Pod {pod} in StatefulSet {set} successful"),
        )
    }

    fn failed(&self, verb: &str, reason: &'static str, pod: &str, why: &str) -> Occurrence {
        let set = self.set.set.metadata.name.as_deref().unwrap_or_default();
        let told = format!("{verb} Pod {pod} in StatefulSet {set} failed error: {why}");
        Occurrence::of(self.set.set, true, reason, told)
    }
}
