//! One pod at the desk, and how news of its processes goes into its record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use store::Revision;
use tokio::sync::watch;

use super::PodHost;
use super::life::Started;
use super::mirrors::Mirror;
use crate::clock::Now;
use crate::pod::{
    Allocation, Failure, LEASE_AWAITED, PodRecord, Preparation, PrepareError, ProbeKind, StartError, Then,
    container, container_id, is_over, is_ready, subject, uid,
};
use crate::probe::Finding;
use crate::runtime::Which;

/// One pod of the host.
pub(super) struct Entry {
    /// Where its object lies, or its mirror.
    pub(super) key: Bytes,
    /// What shows it in the API, for a pod of the host's own manifests.
    pub(super) mirror: Option<Mirror>,
    /// Its object, with the resources that the host gave it.
    pub(super) pod: Arc<Pod>,
    /// These.
    pub(super) allocated: Allocation,
    /// What it asks for.
    pub(super) asked: Allocation,
    /// Its status as stored.
    pub(super) stored: Value,
    /// The revision of its object.
    pub(super) revision: Revision,
    /// What is remembered of it.
    pub(super) record: PodRecord,
    /// Its processes by container.
    pub(super) processes: HashMap<String, Started>,
    /// Set to true once all of it ends: what is only being brought for it isn't waited for any more.
    pub(super) ends: watch::Sender<bool>,
    /// When it must be decided on again.
    pub(super) wake: Option<Duration>,
    /// Whether a write of its status is under way.
    pub(super) writing: bool,
    /// When a write that failed may be tried again.
    pub(super) retry_after: Duration,
    /// How long the last such wait was.
    pub(super) retry_wait: Duration,
    /// The last change written, and when.
    pub(super) last_patch: Option<(Value, Duration)>,
    /// Whether its object is gone.
    pub(super) gone: bool,
    /// Whether its last steps are done.
    pub(super) finished: bool,
    /// Whether its start was noted in the timeline.
    pub(super) told_started: bool,
    /// Whether the last status said ready.
    pub(super) told_ready: bool,
    /// Whether what it had of the host is given back: the pod is over.
    pub(super) released: bool,
    /// The last failure that was reported.
    pub(super) told_failure: String,
}

impl Entry {
    /// A pod as it is read for the first time.
    pub(super) fn new(
        (key, revision): (Bytes, Revision),
        mut pod: Pod,
        allocated: Allocation,
        stored: Value,
        record: PodRecord,
    ) -> Self {
        let asked = Allocation::of(&pod);
        allocated.put_into(&mut pod);
        Entry {
            key,
            mirror: None,
            pod: Arc::new(pod),
            allocated,
            asked,
            told_ready: is_ready(&stored),
            stored,
            revision,
            record,
            processes: HashMap::new(),
            ends: watch::Sender::new(false),
            wake: Some(Duration::ZERO),
            writing: false,
            retry_after: Duration::ZERO,
            retry_wait: Duration::ZERO,
            last_patch: None,
            gone: false,
            finished: false,
            told_started: false,
            released: false,
            told_failure: String::new(),
        }
    }

    /// The uid of its object in the API, if it has one there.
    pub(super) fn uid_in_api(&self) -> Option<&str> {
        match &self.mirror {
            None => Some(uid(&self.pod)),
            Some(mirror) => mirror.uid.as_deref(),
        }
    }
}

impl Entry {
    /// Its object has changed.
    pub(super) fn take(&mut self, mut pod: Pod) {
        self.asked = Allocation::of(&pod);
        self.allocated.put_into(&mut pod);
        self.pod = Arc::new(pod);
    }
}

/// Folder, volumes and address are there, or not.
pub(super) fn prepared(host: &PodHost, entry: &mut Entry, result: Result<IpAddr, PrepareError>, now: Now) {
    match &result {
        Ok(_) => entry.told_failure.clear(),
        Err(error) => {
            let message = error.to_string();
            if entry.told_failure != message {
                host.tell(&entry.pod, None, true, error.event_reason(), message.clone());
                entry.told_failure = message;
            }
        }
    }
    entry.record.prepared(result, now);
}

/// It must go within `grace`. One that goes already, with more time than that, goes sooner: the host can't wait for it.
pub(super) fn evicted(host: &PodHost, entry: &mut Entry, failure: Failure, grace: Duration, now: Now) {
    let is_over = is_over(&entry.pod);
    // An agent that stops has its pods end, and leaves their objects as they are.
    let stays = entry.record.ending.as_ref().is_some_and(|ending| ending.then == Then::Stay);
    if stays || entry.record.finishing || (is_over && !entry.record.alive()) {
        return;
    }
    if entry.record.hurry.is_none() {
        host.tell(&entry.pod, None, true, failure.reason, failure.message.clone());
    }
    entry.record.must_hurry(grace, now);
    if !is_over {
        entry.record.failed.get_or_insert(failure);
    }
}

/// Keeps the list of the pods that have something of the host: those whose folder, volumes and address are there. One that ended leaves
/// it when these are gone.
pub(super) fn note(host: &PodHost, entry: &Entry) {
    if entry.released || entry.record.finishing {
        host.residents.ended(uid(&entry.pod));
    } else if matches!(entry.record.preparation, Preparation::Done { .. }) {
        host.residents.put(entry.pod.clone(), entry.record.hurry.is_some());
    }
}

/// A process was made, or not.
pub(super) fn started(
    host: &PodHost,
    entry: &mut Entry,
    which: &Which,
    result: Result<Started, StartError>,
    now: Now,
) {
    let Some(spec) = container(&entry.pod, &which.container) else { return };
    let probes = (spec.startup_probe.is_some(), spec.readiness_probe.is_some());
    let name = which.container.as_str();
    let full = container_id(&which.uid, name, which.attempt);
    let tell = |warning, reason, message: String| {
        host.tell(&entry.pod, Some(name), warning, reason, message);
    };
    match result {
        Ok(process) => {
            tell(false, "Created", format!("Container created: {name}"));
            tell(false, "Started", format!("Container started: {name}"));
            if !entry.told_started {
                entry.told_started = true;
                let subject = subject(&entry.pod);
                tracing::info!(target: "timeline", what = "pod-started", subject);
            }
            let since = Now { wall: process.since, ..now };
            if let Some(image) = &process.image_id {
                entry.record.has_image(name, which.attempt, image.clone());
            }
            entry.processes.insert(name.to_owned(), process);
            entry.record.started(&full, name, which.attempt, Ok(probes), since);
        }
        Err(error) => {
            let message = match &error {
                StartError::Config(why) => format!("Error: {why}"),
                StartError::Create(why) => format!("Error: failed to create the container: {why}"),
                StartError::Run(why) => format!("Error: failed to start the process: {why}"),
                StartError::Lease(why) => why.clone(),
                StartError::Image(why) => why.message.clone(),
                StartError::Ended => String::new(),
            };
            if error != StartError::Ended && entry.told_failure != message {
                match &error {
                    StartError::Image(why) => {
                        let (reason, told) = why.event.clone();
                        tell(true, reason, told);
                        tell(true, "Failed", format!("Error: {}", why.reason));
                    }
                    StartError::Lease(_) => tell(true, LEASE_AWAITED, message.clone()),
                    _ => tell(true, "Failed", message.clone()),
                }
                entry.told_failure = message;
            }
            entry.record.started(&full, name, which.attempt, Err(error), now);
        }
    }
}

/// A probe or a hook found something.
pub(super) fn found(host: &PodHost, entry: &mut Entry, which: &Which, finding: Finding, now: Now) {
    let name = which.container.as_str();
    let word = |kind: ProbeKind| match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    };
    let Some(spec) = container(&entry.pod, name) else { return };
    let of_ending = |kind| kind != ProbeKind::Readiness && entry.record.stopping;
    match finding {
        // Found a moment before the prober heard of the pod's end.
        Finding::Verdict(kind, _) | Finding::Failure(kind, _) | Finding::Warning(kind, _)
            if of_ending(kind) => {}
        Finding::Warning(kind, why) => {
            let message = format!("{} probe warning: {why}", word(kind));
            host.tell(&entry.pod, Some(name), true, "ProbeWarning", message);
        }
        Finding::PostStartFailed(why) => {
            let message = format!("PostStartHook failed: {why}");
            host.tell(&entry.pod, Some(name), true, "FailedPostStartHook", message);
            let seconds = entry.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
            let grace = Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30));
            entry.record.must_restart(name, which.attempt, grace, now);
        }
        Finding::Failure(kind, why) => {
            let message = format!("{} probe failed: {why}", word(kind));
            host.tell(&entry.pod, Some(name), true, "Unhealthy", message);
        }
        Finding::Verdict(kind, healthy) => {
            let probe = match kind {
                ProbeKind::Startup => &spec.startup_probe,
                ProbeKind::Readiness => &spec.readiness_probe,
                ProbeKind::Liveness => &spec.liveness_probe,
            };
            let of_probe = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
            let of_pod = entry.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
            let seconds = of_probe.or(of_pod).and_then(|s| u64::try_from(s).ok()).unwrap_or(30);
            let grace = Duration::from_secs(seconds);
            if !healthy && kind != ProbeKind::Readiness {
                let lower = word(kind).to_lowercase();
                let message = format!("Container {name} failed {lower} probe, will be restarted");
                host.tell(&entry.pod, Some(name), false, "Killing", message);
            }
            entry.record.probed(name, which.attempt, kind, healthy, grace, now);
        }
    }
}
