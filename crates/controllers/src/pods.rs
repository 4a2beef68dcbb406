//! What a pod's status says.

use std::time::Duration;

use jiff::Timestamp;
use objects::{Meta, Pod, ephemeral_claim};

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

/// Whether the pod has ended and will not run again.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts for its owner: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    pod.condition("Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod serves, if it does and says so.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = pod.condition("Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until the pod has served for `minimum`: nothing if it doesn't serve, zero if it has.
pub fn available_in(pod: &Pod, minimum: Duration, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if minimum.is_zero() {
        return Some(Duration::ZERO);
    }
    // A clock that was ahead: the pod has served for no time yet.
    let served = Duration::try_from(now.duration_since(ready_since(pod)?)).unwrap_or_default();
    Some(minimum.saturating_sub(served))
}

/// Whether the pod has served for `minimum`.
pub fn is_available(pod: &Pod, minimum: Duration, now: Timestamp) -> bool {
    available_in(pod, minimum, now) == Some(Duration::ZERO)
}

/// The names of the claims that the pod uses.
pub fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.map(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => ephemeral_claim(pod.metadata.name(), &volume.name),
    })
}

/// How often the pod's containers were restarted: of the one that was most often.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| &status.container_statuses);
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

/// Whether the pod is being deleted and has not ended.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !is_finished(pod)
}

/// When the pod ended, as exactly as it says: when the last of its containers did, else when it was last ready, else when
/// it was to be deleted, else when it was made (`getFinishedTime` of `pkg/controller/job/backoff_utils.go`).
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses));
    let ends: Option<Vec<Timestamp>> = statuses.map(|container| container.ended).collect();
    let metadata = &pod.metadata;
    let unready = || {
        let condition = pod.condition("Ready").filter(|condition| condition.status == "False")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let last = ends.and_then(|ends| ends.into_iter().max());
    last.or_else(unready)
        .or_else(|| metadata.deletion_timestamp.as_ref().map(|time| time.0))
        .or_else(|| metadata.creation_timestamp.as_ref().map(|time| time.0))
}
