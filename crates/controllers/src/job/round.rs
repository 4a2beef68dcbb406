//! One round: what is known of a Job and its pods, what is decided about them, and the status that it gets.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::Pod;

use super::counting::{self, Uncounted};
use super::failure_policy::Consequence;
use super::indexes::Indexes;
use super::kind::{Job, JobSpec, condition};
use super::members::Member;
use super::outcome::{self, FAILS, Outcome, SUCCEEDS};
use super::{sizing, status};
use crate::plan::Plan;
use crate::pod_writes;
use crate::view::View;

/// What is known of a Job and its pods in one round.
pub(super) struct Round<'a> {
    pub view: &'a View,
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub now: Timestamp,
    /// Its pods, in the order of their indexes.
    pub members: Vec<Member<'a>>,
    /// The pods that the stored status is counting.
    pub uncounted: Uncounted,
    /// The status that it gets.
    pub status: JobStatus,
    /// How many pods have succeeded, or indexes if it has some.
    pub succeeded: i32,
    /// How many pods have failed.
    pub failed: i32,
    /// If it has indexes: which of them are over.
    pub progress: Option<Progress>,
    /// That it is about to be over.
    pub outcome: Option<Outcome>,
    /// By index, the failed member that is kept until another takes over how often the index has failed.
    delayed: HashMap<i32, usize>,
}

/// The indexes that have succeeded, and with a limit for each, those that have failed.
pub(super) struct Progress {
    pub succeeded: Indexes,
    pub failed: Option<Indexes>,
}

impl<'a> Round<'a> {
    pub fn new(
        view: &'a View,
        job: &'a Job,
        spec: &'a JobSpec,
        pods: Vec<&'a Arc<Pod>>,
        now: Timestamp,
    ) -> Self {
        let mut members: Vec<_> = pods.into_iter().map(|pod| Member::new(view, spec, pod)).collect();
        members.sort_by_key(|member| member.index);
        let mut status = job.status.clone().unwrap_or_default();
        let uncounted = Uncounted::of(&status);
        counting::settle(&mut status, &members);
        if status.start_time.is_none() && !spec.is_suspended() {
            status.start_time = Some(Time(now));
        }
        let mut round = Round {
            view,
            job,
            spec,
            now,
            members,
            uncounted,
            status,
            succeeded: 0,
            failed: 0,
            progress: None,
            outcome: None,
            delayed: HashMap::new(),
        };
        round.count();
        round
    }

    /// Decides, and says what is to be done.
    pub fn run(mut self, plan: &mut Plan) {
        let goes_on = self.job.metadata.deletion_timestamp.is_none();
        let mut told = Vec::new();
        self.outcome = outcome::decide(&self, plan);
        if self.outcome.is_some() {
            self.end_pods(plan);
        } else {
            if goes_on {
                sizing::manage(&self, plan);
            }
            if self.is_complete() {
                self.outcome = Some(Outcome::completions_reached());
            } else if goes_on {
                status::suspension(&mut self, &mut told);
            }
        }
        counting::track(&mut self, plan);
        status::end(&mut self, &mut told);
        status::write(&self, told, plan);
    }

    /// Counts the pods and indexes that are over, those included that the status doesn't count yet.
    fn count(&mut self) {
        let lists = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let tracked = || self.members.iter().filter(|member| member.tracked && member.counts);
        let known = |member: &Member<'_>| self.uncounted.failed.contains(member.uid());
        let succeeded = tracked().filter(|member| {
            member.has_succeeded() && !self.uncounted.succeeded.contains(member.uid()) && !known(member)
        });
        let failed = tracked().filter(|member| {
            !member.has_succeeded()
                && member.failed.as_ref().is_some_and(Consequence::counts)
                && !known(member)
        });
        let sum = |stored: Option<i32>, more: usize| {
            stored.unwrap_or(0).saturating_add(i32::try_from(more).unwrap_or(i32::MAX))
        };
        let (succeeded, failed) = (succeeded.count(), failed.count());
        self.succeeded = sum(self.status.succeeded, succeeded + length(&lists.succeeded));
        self.failed = sum(self.status.failed, failed + length(&lists.failed));
        if let Some(all) = self.spec.indexes() {
            let progress = self.progress(all);
            self.succeeded = progress.succeeded.count();
            self.status.succeeded = Some(self.succeeded);
            self.status.completed_indexes = Some(progress.succeeded.to_string());
            self.status.failed_indexes = progress.failed.as_ref().map(ToString::to_string);
            self.delayed = progress.failed.as_ref().map_or_else(HashMap::new, |_| self.delayed(&progress));
            self.progress = Some(progress);
        }
    }

    fn progress(&self, all: i32) -> Progress {
        let stored = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), all);
        let tracked = || self.members.iter().filter(|member| member.tracked);
        let mut succeeded = stored(&self.status.completed_indexes);
        let done = tracked().filter(|member| member.has_succeeded());
        done.filter_map(|member| member.index).for_each(|index| succeeded.insert(index));
        // A pod that is deleted because the Job is over takes its index nowhere.
        let ends = [SUCCEEDS, FAILS].iter().any(|kind| condition(&self.status, kind).is_some());
        let goes = |member: &&Member<'_>| !ends || member.pod.metadata.deletion_timestamp.is_none();
        let failed = self.spec.backoff_limit_per_index.map(|limit| {
            let mut failed = stored(&self.status.failed_indexes);
            let lost = tracked().filter(goes).filter(|member| match &member.failed {
                None | Some(Consequence::Ignored) => false,
                Some(Consequence::FailsIndex) => true,
                Some(Consequence::Counts | Consequence::FailsJob(_)) => member.failures_before().0 >= limit,
            });
            lost.filter_map(|member| member.index).for_each(|index| failed.insert(index));
            failed
        });
        Progress { succeeded, failed }
    }

    fn delayed(&self, progress: &Progress) -> HashMap<i32, usize> {
        let before = |member: &Member<'_>| {
            let (counted, ignored) = member.failures_before();
            counted.saturating_add(ignored)
        };
        let mut delayed: HashMap<i32, usize> = HashMap::new();
        for (at, member) in self.members.iter().enumerate() {
            let Some(index) = member.index.filter(|_| member.tracked && member.failed.is_some()) else {
                continue;
            };
            let is_over = progress.succeeded.has(index)
                || progress.failed.as_ref().is_some_and(|failed| failed.has(index));
            let is_latest =
                delayed.get(&index).is_none_or(|other| before(&self.members[*other]) <= before(member));
            if !is_over && is_latest {
                delayed.insert(index, at);
            }
        }
        for member in self.members.iter().filter(|member| member.failed.is_none()) {
            if let Some(index) = member.index
                && delayed.get(&index).is_some_and(|at| before(&self.members[*at]) < before(member))
            {
                delayed.remove(&index);
            }
        }
        delayed
    }

    /// The failed member of an index that is kept until another takes its place.
    pub fn delayed_of(&self, index: i32) -> Option<&Member<'a>> {
        self.delayed.get(&index).and_then(|at| self.members.get(*at))
    }

    /// Whether it is such a member.
    pub fn is_delayed(&self, member: &Member<'_>) -> bool {
        let kept = member.index.and_then(|index| self.delayed_of(index));
        kept.is_some_and(|kept| kept.uid() == member.uid())
    }

    /// The first indexes, at most `most`, that no pod completes or has completed; nothing if it has no indexes.
    pub fn free_indexes(&self, most: usize) -> Option<Vec<i32>> {
        let (progress, all) = (self.progress.as_ref()?, self.spec.indexes()?);
        let mut taken = progress.succeeded.clone();
        progress.failed.iter().for_each(|failed| taken.extend(failed));
        let holds = |member: &&Member<'_>| match self.spec.replaces_failed_only() {
            true => member.is_active() || (member.is_terminating() && member.failed.is_none()),
            false => member.is_active() && member.tracked,
        };
        self.members.iter().filter(holds).filter_map(|m| m.index).for_each(|index| taken.insert(index));
        Some(taken.missing(most, all))
    }

    fn is_complete(&self) -> bool {
        let enough = match self.spec.completions {
            Some(completions) => self.succeeded >= completions,
            None => self.succeeded > 0,
        };
        enough && !self.members.iter().any(Member::is_active)
    }

    /// Deletes the pods that still run, once the status says why. Where the Job succeeded, they lose the finalizer first:
    /// then their ends don't count as failures.
    fn end_pods(&self, plan: &mut Plan) {
        let Some(outcome) = self.outcome.as_ref().filter(|outcome| outcome.is_said) else { return };
        let active = self.members.iter().filter(|member| member.is_active());
        let goes = active.filter(|member| !outcome.succeeded || !member.tracked);
        plan.actions.extend(goes.map(|member| pod_writes::deletion(self.job, member.pod)));
    }
}
