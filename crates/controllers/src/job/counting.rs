//! Counting the pods that ended, each once, however often the leader changes and whatever fails in between
//! (`trackJobStatusAndRemoveFinalizers`, KEP-2307).
//!
//! A pod passes through these steps, each in a round of its own: its uid goes into `uncountedTerminatedPods` (or its index
//! into `completedIndexes`); once that is stored it loses the finalizer; once it has none, it leaves the list and a number
//! is raised, in one write. A round that is repeated finds the step taken.

use std::collections::HashSet;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};

use super::indexes::Indexes;
use super::members::{Member, untrack};
use super::round::Round;
use crate::plan::Plan;

/// The most pods that wait to be counted, so that the status stays small: upstream's `MaxUncountedPods`.
const MOST: usize = 500;

/// The uids of pods that are being counted.
#[derive(Default)]
pub(super) struct Uncounted {
    pub succeeded: HashSet<String>,
    pub failed: HashSet<String>,
}

impl Uncounted {
    pub fn of(status: &JobStatus) -> Self {
        let lists = status.uncounted_terminated_pods.clone().unwrap_or_default();
        Uncounted {
            succeeded: lists.succeeded.into_iter().flatten().collect(),
            failed: lists.failed.into_iter().flatten().collect(),
        }
    }
}

/// Raises the numbers by the pods that are in the lists and have no finalizer any more.
pub(super) fn settle(status: &mut JobStatus, members: &[Member<'_>]) {
    let tracked: HashSet<&str> = members.iter().filter(|member| member.tracked).map(Member::uid).collect();
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    for (list, number) in
        [(&mut lists.succeeded, &mut status.succeeded), (&mut lists.failed, &mut status.failed)]
    {
        let before = list.as_ref().map_or(0, Vec::len);
        let kept: Vec<String> =
            list.take().into_iter().flatten().filter(|uid| tracked.contains(uid.as_str())).collect();
        let settled = i32::try_from(before - kept.len()).unwrap_or(i32::MAX);
        *number = Some(number.unwrap_or(0).saturating_add(settled));
        *list = Some(kept).filter(|kept| !kept.is_empty());
    }
}

/// Puts the pods that ended into the lists, and takes the finalizer from those of which everything is stored.
pub(super) fn track(round: &mut Round<'_>, plan: &mut Plan) {
    let ends = round.job.metadata.deletion_timestamp.is_some();
    let outcome = round.outcome.clone();
    let is_said = outcome.as_ref().is_none_or(|outcome| outcome.is_said);
    let fails = outcome.as_ref().is_some_and(|outcome| !outcome.succeeded);
    let mut lists = round.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let all = round.spec.indexes().unwrap_or(0);
    let stored = round.job.status.clone().unwrap_or_default();
    let completed = Indexes::parse(stored.completed_indexes.as_deref().unwrap_or_default(), all);
    let failed_before = Indexes::parse(stored.failed_indexes.as_deref().unwrap_or_default(), all);
    let failed_now = round.progress.as_ref().and_then(|progress| progress.failed.as_ref());
    let waiting = |lists: &UncountedTerminatedPods| {
        lists.succeeded.as_ref().map_or(0, Vec::len) + lists.failed.as_ref().map_or(0, Vec::len)
    };
    let mut removed = 0;
    for member in round.members.iter().filter(|member| member.tracked) {
        let is_over = member.has_succeeded() || (member.failed.is_some() && !round.is_delayed(member));
        if !is_over && !ends && outcome.is_none() {
            continue;
        }
        let uid = member.uid();
        let is_recorded = if member.has_succeeded() && !round.uncounted.failed.contains(uid) {
            match (round.progress.is_some(), member.index) {
                (true, index) => index.is_none_or(|index| completed.has(index)),
                (false, _) => put(&round.uncounted.succeeded, &mut lists.succeeded, uid),
            }
        } else if (member.failed.is_some() || fails) && !member.has_succeeded() {
            let counts =
                member.counts && member.failed.as_ref().is_none_or(|consequence| consequence.counts());
            !counts || put(&round.uncounted.failed, &mut lists.failed, uid)
        } else {
            true
        };
        let is_failed_index = |index: &i32| failed_now.is_some_and(|failed| failed.has(*index));
        let index_said = member.index.filter(is_failed_index).is_none_or(|index| failed_before.has(index));
        if is_recorded && is_said && index_said {
            plan.write(untrack(member.pod));
            removed += 1;
        }
        if waiting(&lists) >= MOST || removed >= MOST {
            break;
        }
    }
    round.status.uncounted_terminated_pods = Some(lists);
}

/// Puts a uid into a list unless it is there. Whether it was.
fn put(stored: &HashSet<String>, list: &mut Option<Vec<String>>, uid: &str) -> bool {
    let is_there = stored.contains(uid);
    if !is_there {
        list.get_or_insert_default().push(uid.to_owned());
    }
    is_there
}
