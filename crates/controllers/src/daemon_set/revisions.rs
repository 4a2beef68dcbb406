//! The revisions of a DaemonSet (`constructHistory` and `cleanupHistory` of `pkg/controller/daemon/update.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use objects::Pod;
use serde_json::{Value, json};

use crate::claim::claim;
use crate::history::{self, Named, POD_LABEL};
use crate::kept::{ControllerRevision, DaemonSet, DaemonSetSpec};
use crate::plan::{Plan, delete, merge_this};
use crate::view::View;

/// All revisions of a set.
pub(super) struct Revisions<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    /// Those with the current template, oldest first: one, but for orphans that were adopted.
    current: Vec<&'a Arc<ControllerRevision>>,
    /// The others, oldest first.
    old: Vec<&'a Arc<ControllerRevision>>,
}

/// The hash of the current revision.
pub(super) struct Hash {
    /// As pods have it in their label.
    pub name: String,
    /// Whether the revision is there already.
    pub is_kept: bool,
    /// How often names of others were met, if that changed.
    pub collisions: Option<i32>,
}

impl<'a> Revisions<'a> {
    /// The revisions of a set; orphans are adopted.
    pub fn of(view: &'a View, set: &'a DaemonSet, spec: &'a DaemonSetSpec, plan: &mut Plan) -> Self {
        let mut all = claim(view, set, &spec.selector, |_: &ControllerRevision| true, plan);
        history::sort(&mut all);
        let template = spec.template.kept.fingerprint;
        let (current, old) = all.into_iter().partition(|revision| revision.template == Some(template));
        Revisions { set, spec, current, old }
    }

    /// Sees to it that the current template has one revision, which is the newest.
    pub fn keep(&self, view: &View, stored: &Value, pods: &[&'a Arc<Pod>], plan: &mut Plan) -> Hash {
        let number = self.old.last().map_or(0, |revision| revision.revision) + 1;
        let Some((current, doubles)) = self.current.split_last() else {
            return self.create(view, stored, number, plan);
        };
        let name = hash(current).to_owned();
        if current.revision < number {
            plan.write(history::renumber(current, number));
        }
        for double in doubles {
            for pod in pods.iter().filter(|pod| label(pod) == Some(hash(double))) {
                let patch = json!({"metadata": {"labels": {(POD_LABEL): name}}});
                plan.write(merge_this(pod.as_ref(), "", patch));
            }
            plan.write(delete(double.as_ref()));
        }
        Hash { name, is_kept: true, collisions: None }
    }

    fn create(&self, view: &View, stored: &Value, number: i64, plan: &mut Plan) -> Hash {
        let before = self.set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let named = Named::find(view, self.set, &stored["spec"]["template"], before);
        let collisions = (named.collisions != before).then_some(named.collisions);
        let name = named.hash.clone();
        let labels = &self.spec.template.kept.labels;
        named.create(self.set, labels, POD_LABEL, number).into_iter().for_each(|write| plan.write(write));
        Hash { name, is_kept: false, collisions }
    }

    /// Deletes the oldest revisions beyond those that are to be kept; one that pods still have stays.
    pub fn clean_up(&self, pods: &[&'a Arc<Pod>], plan: &mut Plan) {
        let limit =
            self.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10);
        let surplus = self.old.len().saturating_sub(limit);
        if surplus == 0 {
            return;
        }
        let live: BTreeSet<&str> = pods.iter().filter_map(|pod| label(pod)).collect();
        let dead = self.old.iter().filter(|revision| !live.contains(hash(revision)));
        dead.take(surplus).for_each(|revision| plan.write(delete(revision.as_ref())));
    }
}

/// The hash of a revision; very old ones have it as name alone.
fn hash(revision: &ControllerRevision) -> &str {
    let label = revision.metadata.labels.as_deref().and_then(|labels| labels.get(POD_LABEL));
    label.or(revision.metadata.name.as_ref()).map(String::as_str).unwrap_or_default()
}

fn label(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_deref()?.get(POD_LABEL).map(String::as_str)
}
