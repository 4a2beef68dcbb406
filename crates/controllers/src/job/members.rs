//! The pods of a Job that still matter: those that have not ended, and those that have and are not counted yet. Each of
//! them has the finalizer [`FINALIZER`], so that none goes before it is counted (KEP-2307).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, Pod, Write};
use serde_json::{Value, json};

use super::failure_policy::{Consequence, judge};
use super::kind::JobSpec;
use crate::index::Group;
use crate::plan::merge_this;
use crate::pods;
use crate::view::{View, controller_of};

/// What holds a pod until its Job has counted it.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// Pods by the [`place`] of their Job, without those that have ended and are counted. Those with the finalizer and
/// without a Job are at the place of the Job without a name.
pub(super) struct Unsettled;

impl Group for Unsettled {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match controller_of(&pod.metadata).filter(|owner| is_of_job(owner)) {
            Some(owner) if is_tracked(pod) || !pods::is_finished(pod) => each(&place(namespace, &owner.name)),
            None if is_tracked(pod) => each(&place(namespace, "")),
            _ => {}
        }
    }
}

/// Namespace and name in one text.
pub(super) fn place(namespace: &str, name: &str) -> String {
    [namespace, name].join("\0")
}

/// Whether a reference names a Job.
pub(super) fn is_of_job(owner: &OwnerReference) -> bool {
    owner.kind == "Job" && owner.api_version.starts_with("batch/")
}

/// Whether a pod has the finalizer.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Takes the finalizer from a pod.
pub(super) fn untrack(pod: &Pod) -> Write {
    let all = pod.metadata.finalizers.iter().flatten();
    let kept: Vec<_> = all.filter(|finalizer| *finalizer != FINALIZER).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    merge_this(pod, "", json!({"metadata": {"finalizers": kept}}))
}

/// One of these pods.
pub(super) struct Member<'a> {
    pub pod: &'a Arc<Pod>,
    /// Whether it has the finalizer.
    pub tracked: bool,
    /// The index that it completes; nothing if its Job has none, or not this one.
    pub index: Option<i32>,
    /// Whether it counts: any pod does of a Job without indexes, else those with a valid one.
    pub counts: bool,
    /// If it failed: what that means.
    pub failed: Option<Consequence>,
}

impl<'a> Member<'a> {
    /// What is to be known of a pod.
    pub fn new(view: &View, spec: &JobSpec, pod: &'a Arc<Pod>) -> Self {
        let index = spec.indexes().and_then(|all| index_of(pod).filter(|index| *index < all));
        let failed = has_failed(spec, pod).then(|| match &spec.pod_failure_policy {
            Some(policy) => judge(policy, &view.json(pod.as_ref()).unwrap_or_default()),
            None => Consequence::Counts,
        });
        Member {
            pod,
            tracked: is_tracked(pod),
            index,
            counts: spec.indexes().is_none() || index.is_some(),
            failed,
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn is_active(&self) -> bool {
        pods::is_active(self.pod)
    }

    pub fn is_terminating(&self) -> bool {
        pods::is_terminating(self.pod)
    }

    pub fn has_succeeded(&self) -> bool {
        pods::phase(self.pod) == "Succeeded"
    }

    /// How often its index failed before it: in ways that count, and in others.
    pub fn failures_before(&self) -> (i32, i32) {
        let number = |name: &str| {
            let text = self.pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        (number(INDEX_FAILURES), number(INDEX_IGNORED_FAILURES))
    }

    /// How often its index failed up to now, counting this pod, which did.
    pub fn failures(&self) -> (i32, i32) {
        let (counted, ignored) = self.failures_before();
        match &self.failed {
            Some(Consequence::Ignored) => (counted, ignored + 1),
            _ => (counted + 1, ignored),
        }
    }
}

/// The index that a pod says it completes.
fn index_of(pod: &Pod) -> Option<i32> {
    let text = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// Whether a pod counts as failed: it is, or it is deleted and its Job doesn't wait for its end. What has no time left, and
/// is there for the finalizer alone, no host runs any more: upstream's collector of pods marks that as failed.
fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    let is_gone = pod.metadata.deletion_grace_period_seconds == Some(0);
    pods::phase(pod) == "Failed" || (pods::is_terminating(pod) && (!spec.replaces_failed_only() || is_gone))
}
