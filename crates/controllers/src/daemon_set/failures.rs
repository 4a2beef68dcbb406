//! How often the pods of a DaemonSet failed on a host, kept change by change: the next one waits longer each time.
//!
//! Upstream keeps a back-off of one second that doubles up to a quarter of an hour between the deletions of failed pods
//! (`failedPodsBackoff`), and forgets it with each new leader, as here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Pod, Uid};

use crate::pods;
use crate::tables::Index;
use crate::view::controller_of;

/// After one failure, and at most: upstream's (`NewBackOff` in `cmd/kube-controller-manager/app/apps.go`).
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The failed pods of each DaemonSet on each host.
#[derive(Default)]
pub(super) struct Failures {
    of: HashMap<(Uid, Box<str>), Failure>,
    /// How many there were when those that no longer count were last thrown away.
    kept: usize,
}

struct Failure {
    /// The last one.
    pod: Uid,
    /// When that was made: as soon as the one before was gone.
    made: Timestamp,
    /// How many failed before it.
    before: u32,
}

impl Failures {
    /// How long a failed pod stays yet.
    pub fn left(&self, pod: &Pod, now: Timestamp) -> Duration {
        let failure = place(pod).and_then(|place| self.of.get(&place));
        let Some(before) = failure.and_then(|failure| failure.before.checked_sub(1)) else {
            return Duration::ZERO;
        };
        let pause = FIRST.saturating_mul(2u32.saturating_pow(before)).min(LONGEST);
        let passed = Duration::try_from(now.duration_since(made(pod))).unwrap_or_default();
        pause.saturating_sub(passed)
    }

    fn forget_old(&mut self, now: Timestamp) {
        if self.of.len() > 2 * self.kept + 64 {
            self.of.retain(|_, failure| !is_over(failure.made, now));
            self.kept = self.of.len();
        }
    }
}

impl Index for Failures {
    type Of = Pod;

    fn take(&mut self, _: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        let failed = new.filter(|pod| pods::phase(pod) == "Failed");
        let Some((pod, uid, place)) = failed.and_then(|pod| Some((pod, Uid::of(pod.as_ref())?, place(pod)?)))
        else {
            return;
        };
        let made = made(pod);
        self.forget_old(made);
        let before = match self.of.get(&place) {
            Some(last) if last.pod == uid => return,
            Some(last) if !is_over(last.made, made) => last.before.saturating_add(1),
            _ => 0,
        };
        self.of.insert(place, Failure { pod: uid, made, before });
    }
}

fn is_over(last: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(last)).unwrap_or_default() > 2 * LONGEST
}

fn made(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The DaemonSet and the host of a pod.
fn place(pod: &Pod) -> Option<(Uid, Box<str>)> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "DaemonSet")?;
    Some((owner.uid.as_str().into(), pod.node()?.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, made: i64, phase: &str) -> Arc<Pod> {
        let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true});
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": uid, "uid": uid, "ownerReferences": [owner],
                    "creationTimestamp": Timestamp::from_second(made).unwrap().to_string()},
                "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": phase},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn each_failure_in_a_row_waits_twice_as_long() {
        let mut failures = Failures::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (uid, made, left) in [("a", 0, 0), ("b", 0, 1), ("c", 1, 2), ("d", 3, 4), ("e", 7, 8)] {
            failures.take(None, Some(&pod(uid, made, "Running")));
            failures.take(None, Some(&pod(uid, made, "Failed")));
            failures.take(None, Some(&pod(uid, made, "Failed")));
            assert_eq!(
                failures.left(&pod(uid, made, "Failed"), at(made)),
                Duration::from_secs(left),
                "{uid}"
            );
        }
        assert_eq!(failures.left(&pod("e", 7, "Failed"), at(12)), Duration::from_secs(3));
        assert_eq!(failures.left(&pod("e", 7, "Failed"), at(100)), Duration::ZERO);
        let later = 7 + 31 * 60;
        failures.take(None, Some(&pod("f", later, "Failed")));
        assert_eq!(
            failures.left(&pod("f", later, "Failed"), at(later)),
            Duration::ZERO,
            "the others are long ago"
        );
        for n in 0..40 {
            failures.take(None, Some(&pod(&format!("g{n}"), later, "Failed")));
        }
        assert_eq!(failures.left(&pod("g39", later, "Failed"), at(later)), LONGEST);
    }
}
