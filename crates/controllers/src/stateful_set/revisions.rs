//! Of which revision the pods of a StatefulSet are and which one they shall become (`getStatefulSetRevisions`).

use std::collections::BTreeSet;
use std::sync::Arc;

use objects::Pod;
use serde_json::{Value, json};

use super::{Set, identity};
use crate::claim::claim;
use crate::history::{self, Named};
use crate::kept::ControllerRevision;
use crate::plan::{Plan, delete, merge};

/// The label of a revision with its hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions of a set.
pub(super) struct Revisions<'a> {
    /// The one that all pods had when an update was last complete.
    pub current: &'a str,
    /// The one of the template.
    pub update: &'a str,
    /// The template of the current revision.
    pub current_template: Value,
    /// All of them, oldest first.
    all: Vec<&'a Arc<ControllerRevision>>,
}

impl<'a> Revisions<'a> {
    /// The revisions of a set; orphans are adopted, and the one of the template becomes the newest. Nothing if that is only being
    /// made.
    pub fn of(set: &Set<'a>, plan: &mut Plan) -> Option<Self> {
        let mut all = claim(set.view, set.set, &set.spec.selector, |_: &ControllerRevision| true, plan);
        history::sort(&mut all);
        let is_equal =
            |revision: &&&Arc<ControllerRevision>| revision.template == Some(set.spec.template.fingerprint);
        let number = all.last().map_or(0, |revision| revision.revision) + 1;
        let Some(update) = all.iter().rev().find(is_equal).copied() else {
            if set.is_open() {
                create(set, number, plan);
            }
            return None;
        };
        if !all.last().is_some_and(|last| Arc::ptr_eq(last, update)) {
            plan.write(history::renumber(update, number));
        }
        let said = set.set.status.as_ref().and_then(|status| status.current_revision.as_ref());
        let current = all.iter().find(|revision| said.is_some() && revision.metadata.name.as_ref() == said);
        let current = current.copied().unwrap_or(update);
        let stored = set.view.json(current.as_ref())?;
        Some(Revisions {
            current: name(current),
            update: name(update),
            current_template: history::template(stored.get("data")?)?,
            all,
        })
    }

    /// Deletes the oldest revisions that no pod has, beyond those that are to be kept.
    pub fn clean_up(&self, set: &Set<'_>, pods: &[&Arc<Pod>], plan: &mut Plan) {
        let mut live: BTreeSet<&str> = pods.iter().filter_map(|pod| identity::revision(pod)).collect();
        live.extend([self.current, self.update]);
        let dead: Vec<_> = self.all.iter().filter(|revision| !live.contains(name(revision))).collect();
        let limit =
            set.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10);
        let surplus = dead.len().saturating_sub(limit);
        dead.into_iter().take(surplus).for_each(|revision| plan.write(delete(revision.as_ref())));
    }
}

fn create(set: &Set<'_>, number: i64, plan: &mut Plan) {
    let before = collisions(set);
    let named = Named::find(set.view, set.set, &set.stored["spec"]["template"], before);
    if named.collisions != before {
        plan.write(merge(set.set, "status", json!({"status": {"collisionCount": named.collisions}})));
    }
    let labels = &set.spec.template.labels;
    named.create(set.set, labels, HASH_LABEL, number).into_iter().for_each(|write| plan.write(write));
}

/// How often the names of others' revisions were met.
pub(super) fn collisions(set: &Set<'_>) -> i32 {
    set.set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
}

fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}
