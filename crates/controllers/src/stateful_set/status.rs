//! A StatefulSet's status (`computeReplicaStatus`, `completeRollingUpdate`).

use std::sync::Arc;
use std::time::Duration;

use objects::Pod;
use serde_json::{Value, json};

use super::revisions::{Revisions, collisions};
use super::{Set, identity};
use crate::plan::{Plan, difference, merge};
use crate::pods;

impl Set<'_> {
    /// How long a pod must have served to be available.
    pub(super) fn minimum(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    /// Whether a pod runs and has served for long enough.
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        is_running(pod) && pods::is_available(pod, self.minimum(), self.now)
    }
}

pub(super) fn is_running(pod: &Pod) -> bool {
    pods::phase(pod) == "Running"
}

/// Writes the status if it changed.
pub(super) fn report(set: &Set<'_>, revisions: &Revisions<'_>, pods: &[&Arc<Pod>], plan: &mut Plan) {
    let count = |counts: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| counts(pod)).count();
    let of = |name: &str| {
        count(&|pod| pod.metadata.deletion_timestamp.is_none() && identity::revision(pod) == Some(name))
    };
    let ready = count(&|pod| is_running(pod) && pods::is_ready(pod));
    let available = count(&|pod| set.is_available(pod));
    let updated = of(revisions.update);
    let (mut current, mut current_replicas) = (revisions.current, of(revisions.current));
    let rolls =
        set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if rolls && [updated, ready, pods.len()] == [wanted; 3] {
        (current, current_replicas) = (revisions.update, updated);
    }
    let running = pods.iter().filter(|pod| is_running(pod));
    let waits = running.filter_map(|pod| pods::available_in(pod, set.minimum(), set.now));
    waits.filter(|wait| !wait.is_zero()).min().into_iter().for_each(|wait| plan.again(wait));
    let number = |n: usize| if n == 0 { Value::Null } else { n.into() };
    let wanted = json!({
        "observedGeneration": set.set.metadata.generation,
        "replicas": pods.len(),
        "readyReplicas": number(ready),
        "availableReplicas": available,
        "currentReplicas": number(current_replicas),
        "updatedReplicas": number(updated),
        "currentRevision": current,
        "updateRevision": revisions.update,
        "collisionCount": collisions(set),
    });
    let patch = wanted.as_object().and_then(|wanted| difference(set.stored.get("status"), wanted));
    if let Some(patch) = patch {
        plan.write(merge(set.set, "status", json!({"status": patch})));
    }
}
