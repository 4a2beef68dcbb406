//! How long a Job waits before it replaces pods that failed: ten seconds after the first, twice as long after each
//! further one, at most ten minutes; a pod that succeeds forgets them (`pkg/controller/job/backoff_utils.go`).
//!
//! Upstream remembers failures in memory; here they are what the pods say, so that a new leader waits as the old one did.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Pod, Uid};

use super::members::{is_of_job, is_tracked};
use crate::pods;
use crate::tables::Index;
use crate::view::controller_of;

/// After one failure, and at most: upstream's `DefaultJobPodFailureBackOff` and `MaxJobPodFailureBackOff`.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// When the pods of each Job failed, and when they succeeded, by the Job's uid.
#[derive(Default)]
pub(super) struct Ends {
    jobs: HashMap<Uid, OfJob>,
}

#[derive(Default)]
struct OfJob {
    failed: BTreeMap<Timestamp, usize>,
    succeeded: BTreeMap<Timestamp, usize>,
}

impl Ends {
    /// How long a Job still waits.
    pub fn left(&self, uid: &str, now: Timestamp) -> Option<Duration> {
        let job = self.jobs.get(uid)?;
        let (last, _) = job.failed.last_key_value()?;
        let forgiven = job.succeeded.last_key_value().map(|(at, _)| *at);
        let failures: usize =
            job.failed.iter().rev().take_while(|(at, _)| Some(**at) > forgiven).map(|(_, count)| count).sum();
        left(failures, *last, now)
    }
}

/// How long a Job still waits after this number of failures, the last of them at `last`; nothing if that time is over.
pub(super) fn left(failures: usize, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doubled = u32::try_from(failures.checked_sub(1)?).unwrap_or(u32::MAX);
    let pause = 2_u32.checked_pow(doubled).and_then(|times| FIRST.checked_mul(times));
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    pause.unwrap_or(LONGEST).min(LONGEST).checked_sub(passed).filter(|left| !left.is_zero())
}

impl Index for Ends {
    type Of = Pod;

    fn take(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let Some((uid, succeeded, at)) = old.and_then(|pod| end(pod))
            && let Some(job) = self.jobs.get_mut(uid)
        {
            let ends = job.of(succeeded);
            if let Some(count) = ends.get_mut(&at) {
                *count -= 1;
                if *count == 0 {
                    ends.remove(&at);
                }
            }
            if job.failed.is_empty() && job.succeeded.is_empty() {
                self.jobs.remove(uid);
            }
        }
        if let Some((uid, succeeded, at)) = new.and_then(|pod| end(pod)) {
            let job = self.jobs.entry(uid.into()).or_default();
            *job.of(succeeded).entry(at).or_default() += 1;
        }
    }
}

impl OfJob {
    fn of(&mut self, succeeded: bool) -> &mut BTreeMap<Timestamp, usize> {
        if succeeded { &mut self.succeeded } else { &mut self.failed }
    }
}

/// The Job of a pod that ended, whether it succeeded, and when. Pods that the controller itself gave up, which have
/// lost their finalizer, have not failed.
fn end(pod: &Pod) -> Option<(&str, bool, Timestamp)> {
    let owner = controller_of(&pod.metadata).filter(|owner| is_of_job(owner))?;
    let succeeded = pods::phase(pod) == "Succeeded";
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let failed = if deleted { is_tracked(pod) } else { pods::phase(pod) == "Failed" };
    (succeeded || failed).then_some(())?;
    Some((&owner.uid, succeeded, pods::ended_at(pod)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(phase: &str, ended: i64) -> Arc<Pod> {
        let owner =
            json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u", "controller": true});
        let state = json!({"terminated": {"exitCode": 1, "finishedAt": at(ended).to_string()}});
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "ownerReferences": [owner]},
            "status": {"phase": phase, "containerStatuses": [{"name": "c", "state": state}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_wait_doubles_with_each_failure_up_to_ten_minutes() {
        for (failures, seconds) in [(0, 0), (1, 10), (2, 20), (6, 320), (7, 600), (8, 600), (1000, 600)] {
            let wait = left(failures, at(0), at(0)).unwrap_or_default();
            assert_eq!(wait.as_secs(), seconds, "{failures}");
        }
        assert_eq!(left(1, at(0), at(4)), Some(Duration::from_secs(6)));
        assert_eq!(left(1, at(0), at(10)), None);
    }

    #[test]
    fn a_success_forgives_the_failures_before_it() {
        let mut ends = Ends::default();
        let (first, second, third) = (pod("Failed", 1), pod("Failed", 2), pod("Failed", 5));
        [&first, &second].into_iter().for_each(|pod| ends.take(None, Some(pod)));
        assert_eq!(ends.left("u", at(2)), Some(Duration::from_secs(20)));
        let success = pod("Succeeded", 3);
        ends.take(None, Some(&success));
        assert_eq!(ends.left("u", at(3)), None);
        ends.take(None, Some(&third));
        assert_eq!(ends.left("u", at(5)), Some(Duration::from_secs(10)));
        for gone in [&first, &second, &third, &success] {
            ends.take(Some(gone), None);
        }
        assert!(ends.jobs.is_empty());
    }
}
