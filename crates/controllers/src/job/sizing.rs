//! How many pods of a Job run: `manageJob` of `pkg/controller/job/job_controller.go`.
//!
//! A pod that is given up first loses the finalizer, so that its end counts for nothing, and is deleted by the round after
//! that. So an active pod without the finalizer is always one that is given up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use machinery::Object;

use super::making;
use super::members::{Member, untrack};
use super::retry::{self, Ends};
use super::round::Round;
use crate::plan::Plan;
use crate::{pod_writes, pods, victims};

/// The most pods that one round makes or gives up; the next one goes on: upstream's `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;

/// Makes pods that are missing, or gives up those that are too many.
pub(super) fn manage(round: &Round<'_>, plan: &mut Plan) {
    let (active, given_up): (Vec<&Member<'_>>, Vec<_>) =
        round.members.iter().filter(|member| member.is_active()).partition(|member| member.tracked);
    for member in given_up.iter().take(BURST) {
        plan.actions.push(pod_writes::deletion(round.job, member.pod));
    }
    if round.spec.is_suspended() {
        return active.iter().take(BURST).for_each(|member| plan.write(untrack(member.pod)));
    }
    let wanted = wanted(round, active.len());
    let surplus = surplus(round, &active, wanted);
    if !surplus.is_empty() {
        return surplus.iter().take(BURST).for_each(|member| plan.write(untrack(member.pod)));
    }
    let ending = match round.spec.replaces_failed_only() {
        true => given_up.len() + round.members.iter().filter(|member| member.is_terminating()).count(),
        false => 0,
    };
    let missing = wanted.saturating_sub(active.len() + ending).min(BURST);
    if missing > 0 {
        make(round, missing, plan);
    }
}

/// How many pods are to run, where `active` run already.
fn wanted(round: &Round<'_>, active: usize) -> usize {
    let parallelism = round.spec.parallelism();
    let wanted = match round.spec.completions {
        // Once one has succeeded, the others are left to end.
        None if round.succeeded > 0 => return active,
        None => parallelism,
        Some(completions) => (completions - round.succeeded).min(parallelism),
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Those that are too many: of a Job with indexes all but one of each, and then those that are missed least.
fn surplus<'a>(round: &Round<'_>, active: &[&'a Member<'a>], wanted: usize) -> Vec<&'a Member<'a>> {
    let none = HashMap::new();
    let mut by_index: BTreeMap<Option<i32>, Vec<&'a Member<'a>>> = BTreeMap::new();
    for member in active {
        by_index.entry(member.index).or_default().push(member);
    }
    // Those that go, and those that stay.
    let split = |members: Vec<&'a Member<'a>>, count: usize| -> (Vec<_>, Vec<_>) {
        let pods = members.iter().map(|member| member.pod).collect();
        let chosen = victims::choose(pods, &none, count, round.now);
        let chosen: HashSet<_> = chosen.into_iter().map(Arc::as_ptr).collect();
        members.into_iter().partition(|member| chosen.contains(&Arc::as_ptr(member.pod)))
    };
    let (mut surplus, mut left) = (Vec::new(), Vec::new());
    for (index, members) in by_index {
        let most = match (round.spec.indexes(), index) {
            (None, _) => members.len(),
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 0,
        };
        let count = members.len().saturating_sub(most);
        let (goes, stays) = split(members, count);
        surplus.extend(goes);
        left.extend(stays);
    }
    let least = active.len().saturating_sub(wanted).saturating_sub(surplus.len());
    surplus.extend(split(left, least).0);
    surplus
}

fn make(round: &Round<'_>, missing: usize, plan: &mut Plan) {
    let limited_each = round.spec.backoff_limit_per_index.is_some();
    let uid = round.job.metadata.uid.as_deref().unwrap_or_default();
    let wait = round.view.index::<Ends>().and_then(|ends| ends.left(uid, round.now));
    if let Some(wait) = wait.filter(|_| !limited_each) {
        return plan.again(wait);
    }
    if !round.view.is_open(round.job.metadata.namespace.as_deref().unwrap_or_default()) {
        return;
    }
    let Some(pod) = round.view.json(round.job).and_then(|stored| making::pod(round.job, &stored)) else {
        return;
    };
    let Some(indexes) = round.free_indexes(missing) else {
        let Some(pod) = Object::from_value(pod) else { return };
        return plan.actions.extend((0..missing).map(|_| pod_writes::creation(round.job, pod.clone())));
    };
    for index in indexes {
        let replaced = round.delayed_of(index);
        let failures = limited_each.then(|| replaced.map_or((0, 0), Member::failures));
        let wait = replaced.and_then(|member| {
            let (counted, ignored) = member.failures();
            let all = usize::try_from(counted.saturating_add(ignored)).unwrap_or(0);
            retry::left(all, pods::ended_at(member.pod)?, round.now)
        });
        match wait {
            Some(wait) => plan.again(wait),
            None => plan.actions.extend(
                making::indexed(round.job, &pod, index, failures)
                    .map(|pod| pod_writes::creation(round.job, pod)),
            ),
        }
    }
}
