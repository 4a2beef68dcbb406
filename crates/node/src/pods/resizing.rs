//! A pod that is resized in place: whether the host has what it asks for, and how what runs is brought to it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use tracing::info_span;

use super::PodHost;
use super::entry::Entry;
use crate::clock::Now;
use crate::container::cgroup::{self, Amounts};
use crate::pod::{Allocation, Change, Pending, Resized, Resizing, is_over, judge, message, subject, uid};
use crate::runtime::Which;

/// What a former agent gave a pod: what it kept of that, else what the pod's status says.
pub(super) fn former_allocation(host: &PodHost, pod: &Pod) -> Allocation {
    // One that nobody has begun has nothing yet.
    if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
        return Allocation::of(pod);
    }
    match read(&host.folders.allocation(uid(pod))) {
        Ok(kept) => kept,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(pod = subject(pod), %error, "what a pod was given is taken from its status");
            }
            Allocation::told(pod)
        }
    }
}

fn read(file: &Path) -> io::Result<Allocation> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn keep(file: &Path, allocation: &Allocation) -> io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, serde_json::to_vec(allocation)?)?;
    fs::rename(unfinished, file)
}

/// Judges again, the most important ones first, what the host had too little for.
pub(super) fn judge_deferred(host: &PodHost, entries: &mut HashMap<String, Entry>) {
    let is_deferred = |entry: &Entry| entry.record.resize.pending.as_ref().is_some_and(|p| !p.is_infeasible);
    let mut deferred: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| is_deferred(entry))
        .map(|(id, entry)| (rank(&entry.pod), id.clone()))
        .collect();
    deferred.sort();
    for (_, id) in deferred {
        judge_resize(host, entries, &id);
    }
}

/// By priority, then by class: the kubelet's order.
fn rank(pod: &Pod) -> (i64, u8) {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    (-i64::from(priority), if class == Some("Guaranteed") { 0 } else { 1 })
}

/// Gives a pod what its spec asks for, if the host has it; else it keeps what it has, and says why.
pub(super) fn judge_resize(host: &PodHost, entries: &mut HashMap<String, Entry>, id: &str) {
    let Some(entry) = entries.get(id) else { return };
    let is_same = entry.asked == entry.allocated;
    if is_same && entry.record.resize.pending.is_none() {
        return;
    }
    let ends = is_over(&entry.pod) || entry.record.ending.is_some() || entry.record.failed.is_some();
    let others = || {
        let all = entries.iter().filter(|(other, entry)| *other != id && !entry.released);
        all_take(all.map(|(_, entry)| entry))
    };
    let mut pod = (*entry.pod).clone();
    entry.asked.put_into(&mut pod);
    let generation = pod.metadata.generation;
    let has = takes(entry);
    let pending = match is_same || ends {
        true => None,
        false => judge(cgroup::of_pod(&pod), has, others(), host.capacity, generation),
    };
    let Some(entry) = entries.get_mut(id) else { return };
    let before = std::mem::replace(&mut entry.record.resize.pending, pending);
    if let Some(pending) = &entry.record.resize.pending {
        let known = |before: &Pending| {
            (before.generation, before.is_infeasible) == (generation, pending.is_infeasible)
        };
        // How much the others have changes often.
        if !before.as_ref().is_some_and(known) {
            let what = format!("Pod resize {}", pending.reason());
            let told = message(&what, &pod, generation, Some(&pending.message));
            host.tell(&pod, None, true, pending.event_reason(), told);
        }
    }
    let fits = !is_same && !ends && entry.record.resize.pending.is_none();
    if fits {
        host.tell(&pod, None, false, "ResizeStarted", message("Pod resize started", &pod, generation, None));
        (entry.pod, entry.allocated) = (Arc::new(pod), entry.asked.clone());
        entry.record.allocated(generation);
    }
    if fits || before != entry.record.resize.pending {
        entry.wake = Some(Duration::ZERO);
    }
}

/// What of the host is a pod's: what it was given, and what it still has of what it had before.
pub(super) fn takes(entry: &Entry) -> Amounts {
    let given = cgroup::of_pod(&entry.pod);
    entry.record.resize.given.map_or(given, |has| has.or(given))
}

/// What pods take of the host together: processors in thousandths, memory.
pub(super) fn all_take<'a>(entries: impl Iterator<Item = &'a Entry>) -> (u64, u64) {
    entries.map(takes).fold((0, 0), |sum: (u64, u64), one| {
        (sum.0.saturating_add(one.cpu_request), sum.1.saturating_add(one.memory_request))
    })
}

/// What an attempt did. One that panics has failed, so that it is tried again.
pub(super) async fn attempted(attempt: impl Future<Output = Resized>) -> Resized {
    let done = AssertUnwindSafe(attempt).catch_unwind().await;
    done.unwrap_or_else(|_| {
        let error = Some("the attempt broke off: the host's log says why".to_owned());
        Resized { error, ..Resized::default() }
    })
}

/// An attempt is over.
pub(super) fn resized(host: &PodHost, entry: &mut Entry, resizing: Resizing, done: Resized, now: Now) {
    if let Some(error) = entry.record.resized(resizing, done, now) {
        let generation = entry.record.resize.progress.as_ref().and_then(|progress| progress.generation);
        let told = message("Pod resize error", &entry.pod, generation, Some(&error));
        host.tell(&entry.pod, None, true, "ResizeError", told);
    }
}

impl PodHost {
    /// Keeps what a pod was given, and brings what runs of it to that: the pod as a whole grows before its containers and shrinks after them.
    pub(super) async fn resize(&self, uid: &str, allocation: &Allocation, resizing: &Resizing) -> Resized {
        let mut done = Resized::default();
        done.error = self.try_resize(uid, allocation, resizing, &mut done).await.err();
        done
    }

    async fn try_resize(
        &self,
        uid: &str,
        allocation: &Allocation,
        Resizing { pod: (from, to), containers, .. }: &Resizing,
        done: &mut Resized,
    ) -> Result<(), String> {
        let (file, kept) = (self.folders.allocation(uid), allocation.clone());
        let work = tasks::blocking(info_span!("keep an allocation", uid), move || keep(&file, &kept)).await;
        work.map_err(io::Error::other)
            .flatten()
            .map_err(|why| format!("can't keep what the pod was given: {why}"))?;
        done.is_kept = true;
        self.check_memory(uid, (*from, *to), containers).await?;
        let whole = |amounts| self.runtime.update_resources(uid, None, amounts);
        let grown = from.or(*to);
        if grown != *from {
            whole(grown).await.map_err(|why| format!("can't resize the pod: {why}"))?;
            done.pod = Some(grown);
        }
        for change in containers {
            let (container, attempt) = (change.container.clone(), change.attempt);
            let which = Which { uid: uid.to_owned(), container, attempt };
            let updated = self.runtime.update_resources(uid, Some(&which), change.to).await;
            updated.map_err(|why| format!("can't resize container {:?}: {why}", change.container))?;
            done.containers += 1;
        }
        if grown != *to {
            whole(*to).await.map_err(|why| format!("can't resize the pod: {why}"))?;
        }
        done.pod = Some(*to);
        Ok(())
    }

    /// A limit below what is used would have the kernel kill for it: such a resize waits.
    async fn check_memory(
        &self,
        uid: &str,
        pod: (Amounts, Amounts),
        containers: &[Change],
    ) -> Result<(), String> {
        let shrinks =
            |from: Amounts, to: Amounts| to.memory.filter(|to| from.memory.is_none_or(|from| *to < from));
        let mut faults = Vec::new();
        if let Some(limit) = shrinks(pod.0, pod.1) {
            let used = self
                .runtime
                .memory_of_pods(vec![uid.to_owned()])
                .await
                .get(uid)
                .map(|memory| memory.working_set);
            if let Some(used) = used.filter(|used| *used > limit) {
                faults.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        let shrinking: Vec<_> =
            containers.iter().filter_map(|one| Some((&one.container, shrinks(one.from, one.to)?))).collect();
        if !shrinking.is_empty() {
            let usage = self.runtime.usage().await;
            for (name, limit) in shrinking {
                let own = usage.iter().find(|(which, ..)| which.uid == uid && which.container == *name);
                if let Some(used) = own.map(|(_, _, usage)| usage.memory).filter(|used| *used > limit) {
                    faults.push(format!(
                        "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                    ));
                }
            }
        }
        match &*faults {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_has_failed() {
        let broken = attempted(async { panic!("no such container") }).await;
        assert!(broken.error.is_some_and(|why| why.contains("broke off")) && !broken.is_kept);
        let fine = attempted(async { Resized { is_kept: true, ..Resized::default() } }).await;
        assert!(fine.error.is_none() && fine.is_kept);
    }
}
