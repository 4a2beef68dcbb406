//! The pods of the host's own manifests at the desk, and the mirrors by which the API shows them.
//!
//! A static pod is run because of its file alone. Its mirror is a picture: whatever becomes of it, the pod goes on, and a mirror that was
//! deleted is made again (`pkg/kubelet/pod/mirror_client.go`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use machinery::{Object, Status};
use serde_json::Value;
use store::{KeyValue, Revision, State};
use tasks::SpawnIn;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::info_span;

use super::PodHost;
use super::desk::{Desk, read};
use super::entry::Entry;
use super::handler::{admit, refusal};
use super::life::Report;
use super::pod_host::mirrored;
use super::static_records::record_of;
use super::writing::{make_mirror, remove_mirror};
use crate::clock::Now;
use crate::manifests::{StaticPod, StaticPods};
use crate::pod::{
    Allocation, PodRecord, Then, is_over, must_end, phase, resume, spec_grace, status, subject, uid,
};

/// The pauses before a mirror that was not made is tried again: the first, and the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The reason of Events about mirrors that can't be made.
const NO_MIRROR: &str = "FailedMirrorPod";

/// What shows a static pod in the API.
#[derive(Debug)]
pub(super) struct Mirror {
    /// What it is to be.
    object: Arc<Object>,
    /// The uid of the one that is there.
    pub(super) uid: Option<String>,
    /// Whether one is being made.
    making: bool,
    retry_after: Duration,
    retry_wait: Duration,
    /// Why there is none, as it was told last.
    told: String,
    /// What is known of the pod on the disk, or about to be.
    kept: Value,
    /// Whether that is being written.
    keeping: bool,
}

impl Entry {
    fn of_manifest(key: Bytes, pod: Pod, mirror: Arc<Object>, record: PodRecord, kept: Value) -> Self {
        // Another amount makes another manifest, and so another pod.
        let allocated = Allocation::of(&pod);
        let mut entry = Entry::new((key, Revision::ZERO), pod, allocated, Value::Null, record);
        entry.mirror = Some(Mirror {
            object: mirror,
            uid: None,
            making: false,
            retry_after: Duration::ZERO,
            retry_wait: Duration::ZERO,
            told: String::new(),
            kept,
            keeping: false,
        });
        entry
    }

    /// Has what is known of a static pod kept, and answers whether it is: the next agent knows what the API has heard.
    pub(super) fn keep_record(
        &mut self,
        host: &Arc<PodHost>,
        reports: &mpsc::UnboundedSender<Report>,
        work: &mut JoinSet<()>,
        now: Now,
    ) -> bool {
        let Some(mirror) = &mut self.mirror else { return true };
        if mirror.keeping {
            return false;
        }
        // Without what the mirror says.
        let status = status(&self.pod, &Value::Null, &self.record, host.address, now);
        let record = record_of(&status, self.record.failed.is_none());
        // Of one that goes nothing is to be known: the same manifest may come back.
        if mirror.kept == record || self.record.ending.is_some() {
            return true;
        }
        mirror.kept = record.clone();
        mirror.keeping = true;
        let (host, reports, id) = (host.clone(), reports.clone(), uid(&self.pod).to_owned());
        host.static_records.set(&id, record);
        work.spawn_in(info_span!("keep record", pod = subject(&self.pod)), async move {
            host.static_records.write(&id).await;
            let _ = reports.send(Report::Kept(id));
        });
        false
    }

    /// Remembers that a static pod is over. Of other pods their objects say so.
    pub(super) fn note_end(&mut self) {
        if self.mirror.is_none() || is_over(&self.pod) {
            return;
        }
        let phase = phase(&self.pod, &self.record);
        if matches!(phase, "Succeeded" | "Failed") {
            let pod = Arc::make_mut(&mut self.pod);
            pod.status.get_or_insert_default().phase = Some(phase.into());
        }
    }

    /// Has the mirror made, if there is none.
    pub(super) fn keep_mirror(
        &mut self,
        host: &Arc<PodHost>,
        reports: &mpsc::UnboundedSender<Report>,
        work: &mut JoinSet<()>,
        now: Now,
    ) {
        let Some(mirror) = &mut self.mirror else { return };
        if mirror.uid.is_some() || mirror.making || self.gone || self.record.ending.is_some() {
            return;
        }
        if let Some(there) = host.store.snapshot().get(&self.key) {
            // It is heard of when that one goes.
            let other = objects::decode::<Pod>(there).ok().filter(|other| mirrored(other).is_none());
            if other.is_some() {
                mirror.tell(host, &self.pod, "another pod of this name is in the API");
            }
            return;
        }
        if now.elapsed < mirror.retry_after {
            self.wake = Some(self.wake.map_or(mirror.retry_after, |wake| wake.min(mirror.retry_after)));
            return;
        }
        mirror.making = true;
        work.spawn_in(
            info_span!("make mirror", pod = subject(&self.pod)),
            make_mirror(host.clone(), uid(&self.pod).to_owned(), mirror.object.clone(), reports.clone()),
        );
    }
}

impl Mirror {
    /// Tells why there is none, once.
    fn tell(&mut self, host: &PodHost, pod: &Pod, why: &str) {
        if self.told == why {
            return;
        }
        self.told = why.to_owned();
        let message = format!("The static pod {} runs, and the API can't show it: {why}", subject(pod));
        tracing::warn!("{message}");
        host.tell_of_node(NO_MIRROR, message);
    }

    /// What is known of the pod was written, as far as that could be.
    pub(super) fn was_kept(&mut self) {
        self.keeping = false;
    }

    fn made(&mut self, host: &PodHost, pod: &Pod, result: Result<(), Status>, now: Now) {
        self.making = false;
        match result {
            Ok(()) => {
                self.told.clear();
                self.retry_wait = Duration::ZERO;
            }
            Err(status) => {
                if (400..500).contains(&status.code) && !matches!(status.code, 409 | 429) {
                    self.tell(host, pod, &status.message);
                } else {
                    tracing::debug!(pod = subject(pod), %status, "a mirror was not made");
                }
                self.retry_wait = (self.retry_wait * 2).clamp(RETRY.0, RETRY.1);
                self.retry_after = now.elapsed + self.retry_wait;
            }
        }
    }
}

impl Desk {
    /// These static pods there should be.
    pub(super) fn are_wanted(&mut self, wanted: StaticPods) {
        self.wanted = wanted;
        self.settle_static();
    }

    /// Ends the static pods that should not be there, and starts those that should: one that was changed once its former self is gone.
    pub(super) fn settle_static(&mut self) {
        // As the host shuts down, what was changed is for its next start.
        if self.leaving || self.closing.is_some() {
            return;
        }
        let now = self.host.clock.now();
        for (key, id) in self.host.static_pods.list() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let is_wanted = self.wanted.get(&key).is_some_and(|one| uid(&one.pod) == id);
            if !is_wanted && entry.record.ending.is_none() {
                tracing::info!(
                    pod = subject(&entry.pod),
                    "the manifest of a static pod is gone or was changed"
                );
                must_end(&mut entry.record, Then::Confirm, now.elapsed + spec_grace(&entry.pod));
                entry.wake = Some(Duration::ZERO);
            }
        }
        let is_missing = |(key, _): &(&Bytes, &StaticPod)| self.host.static_pods.get(key).is_none();
        let missing: Vec<(Bytes, StaticPod)> =
            self.wanted.iter().filter(is_missing).map(|(key, one)| (key.clone(), one.clone())).collect();
        for (key, one) in missing {
            self.start_static(key, &one);
        }
    }

    /// Ends the static pods of a former life that should not be there any more, before those start that are in their place.
    pub(super) async fn end_former_static(&mut self, wanted: &StaticPods) {
        let is_wanted = |id: &str| wanted.values().any(|one| uid(&one.pod) == id);
        let there = self.host.runtime.sandboxes();
        let patience = self.former_patience();
        let former: Vec<String> =
            self.host.static_records.uids().into_iter().filter(|id| !is_wanted(id)).collect();
        for id in former {
            if there.contains(&id) {
                tracing::info!(uid = id, "the manifest of a static pod is gone or was changed: ended");
                self.found.remove(&id);
                self.end_former(&id, patience).await;
            }
            self.forget_record(id);
        }
    }

    /// Nothing is to be known of a static pod any more.
    fn forget_record(&mut self, id: String) {
        let host = self.host.clone();
        host.static_records.forget(&id);
        let span = info_span!("forget a static pod", uid = id);
        self.work.spawn_in(span, async move { host.static_records.write(&id).await });
    }

    fn start_static(&mut self, key: Bytes, one: &StaticPod) {
        let (host, state) = (self.host.clone(), self.host.store.snapshot());
        let id = uid(&one.pod).to_owned();
        let mut pod = (*one.pod).clone();
        let kept = host.static_records.get(&id).unwrap_or_default();
        if let Ok(said) = serde_json::from_value::<PodStatus>(kept.clone()) {
            let status = pod.status.get_or_insert_default();
            if said.phase.is_some() {
                status.phase = said.phase;
            }
            status.start_time = said.start_time;
            status.pod_ip = said.pod_ip;
            status.init_container_statuses = said.init_container_statuses;
            status.container_statuses = said.container_statuses;
        }
        let mut record = resume(&pod, host.clock.now());
        record.refused = refusal(&host, &pod, &state);
        if let Some(why) = &record.refused {
            host.tell(&pod, None, true, "FailedCreatePodSandBox", why.clone());
        }
        let mut entry = Entry::of_manifest(key.clone(), pod, one.mirror.clone(), record, kept);
        let found = self.found.remove(&id);
        if found.is_none() && !host.awaits_runtime(&entry.pod) {
            admit(&host, &mut entry, &self.entries);
        }
        host.static_pods.put(key.clone(), id.clone());
        self.entries.insert(id.clone(), entry);
        if let Some(found) = found {
            self.take_over(&id, found);
        }
        self.look_up_mirror(&key);
    }

    /// All of the static pods of these keys is gone.
    pub(super) fn are_gone(&mut self, keys: &[Bytes]) {
        let ids: Vec<String> = keys.iter().filter_map(|key| self.host.static_pods.remove(key)).collect();
        ids.into_iter().for_each(|id| self.forget_record(id));
        if !keys.is_empty() {
            self.settle_static();
        }
        // Their mirrors go now, also those that were made while they ended.
        keys.iter().for_each(|key| self.look_up_mirror(key));
    }

    /// Takes the mirror that the newest state here has under a key. Another pod there is left for the watch to bring: before the desk
    /// knows of a majority, the state may be an old one.
    pub(super) fn look_up_mirror(&mut self, key: &Bytes) {
        let there = self.host.store.snapshot().get(key).cloned();
        match there.and_then(|kv| read(&kv).map(|(pod, stored)| (kv, pod, stored))) {
            Some((kv, pod, stored)) if mirrored(&pod).is_some() => self.sees_mirror(&kv, pod, stored),
            _ => self.lost_mirror(key),
        }
    }

    /// What was not to be known of a static pod before the state was.
    pub(super) fn look_at_static_again(&mut self, state: &State) {
        for entry in self.entries.values_mut().filter(|entry| entry.mirror.is_some()) {
            if entry.record.refused.is_some() {
                entry.record.refused = refusal(&self.host, &entry.pod, state);
                entry.wake = Some(Duration::ZERO);
            }
        }
    }

    /// A pod of this host in the API says that it is a mirror. One of nothing that runs here, or of what ran before, goes.
    pub(super) fn sees_mirror(&mut self, kv: &KeyValue, pod: Pod, stored: Value) {
        let is_right = |id: &String| mirrored(&pod) == Some(id) && pod.metadata.deletion_timestamp.is_none();
        let known = self.host.static_pods.get(&kv.key);
        let entry = known.as_ref().and_then(|id| self.entries.get_mut(id));
        if let (Some(entry), Some(id)) = (entry, &known)
            && let Some(mirror) = &mut entry.mirror
        {
            if entry.revision >= kv.mod_revision {
                return;
            }
            entry.revision = kv.mod_revision;
            entry.wake = Some(Duration::ZERO);
            if is_right(id) {
                mirror.uid = Some(uid(&pod).to_owned());
                entry.stored = stored;
                return;
            }
            mirror.uid = None;
        }
        if self.removing.insert(uid(&pod).to_owned()) {
            let (host, reports) = (self.host.clone(), self.reports.clone());
            self.work.spawn_in(
                info_span!("remove mirror", pod = subject(&pod)),
                remove_mirror(host, pod, reports),
            );
        }
    }

    /// No pod of that name is in the API any more.
    pub(super) fn lost_mirror(&mut self, key: &Bytes) {
        let known = self.host.static_pods.get(key);
        let Some(entry) = known.and_then(|id| self.entries.get_mut(&id)) else { return };
        if let Some(mirror) = &mut entry.mirror {
            mirror.uid = None;
            entry.last_patch = None;
            entry.wake = Some(Duration::ZERO);
        }
    }

    /// A mirror that was not to be there is gone.
    pub(super) fn mirror_removed(&mut self, uid: &str) {
        self.removing.remove(uid);
        // One of them may have waited for its name.
        for entry in self.entries.values_mut().filter(|entry| entry.mirror.is_some()) {
            entry.wake = Some(Duration::ZERO);
        }
    }

    /// A mirror was made, or not.
    pub(super) fn mirror_made(&mut self, id: &str, result: Result<(), Status>) {
        let (host, now) = (self.host.clone(), self.host.clock.now());
        let Some(entry) = self.entries.get_mut(id) else { return };
        let is_made = result.is_ok();
        if let Some(mirror) = &mut entry.mirror {
            mirror.made(&host, &entry.pod, result, now);
        }
        entry.wake = Some(Duration::ZERO);
        if is_made {
            let key = entry.key.clone();
            self.look_up_mirror(&key);
        }
    }
}
