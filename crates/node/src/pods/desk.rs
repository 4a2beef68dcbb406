//! The desk: one task that knows all pods of the host, hears what happens, and has decisions carried out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use store::{Event, KeyRange, KeyValue, State, Watcher};
use tasks::SpawnIn;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug_span, info_span};

use super::PodHost;
use super::acting::{carry_out, say};
use super::entry::{Entry, evicted, found, note, prepared, started};
use super::handler::{admit, refusal};
use super::life::{Report, begin, outcome, watch_over};
use super::resizing::{former_allocation, judge_deferred, judge_resize, resized};
use crate::clock::Now;
use crate::pod::{
    Preparation, Then, container, container_id, decide, is_over, must_end, resume, subject, take_over, uid,
    without_nulls,
};
use crate::runtime::{Found, Trouble, Which};

/// How long pods have to end when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often files from ConfigMaps and Secrets are brought up to date.
const REFRESH: Duration = Duration::from_secs(20);

/// The pods of the host.
pub(crate) struct Desk {
    host: Arc<PodHost>,
    entries: HashMap<String, Entry>,
    by_key: HashMap<Bytes, String>,
    /// What former agents started, by the uid of its pod, until its pod is known.
    found: HashMap<String, Vec<Found>>,
    reports: mpsc::UnboundedSender<Report>,
    news: mpsc::UnboundedReceiver<Report>,
    work: JoinSet<()>,
    leaving: bool,
    refresh_at: Duration,
}

impl Desk {
    pub(crate) fn new(host: Arc<PodHost>) -> Self {
        let (reports, news) = mpsc::unbounded_channel();
        Desk {
            host,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            found: HashMap::new(),
            reports,
            news,
            work: JoinSet::new(),
            leaving: false,
            refresh_at: REFRESH,
        }
    }

    /// Where news for the desk goes.
    pub(crate) fn reports(&self) -> mpsc::UnboundedSender<Report> {
        self.reports.clone()
    }

    /// Works until `stop` says true and all processes are dead, or the store ended.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        let runtime = self.host.runtime.clone();
        self.work(stop.clone()).await;
        if *stop.borrow() {
            runtime.end_all().await;
        }
    }

    async fn work(mut self, mut stop: watch::Receiver<bool>) {
        // What no shim holds of a former life is ended: it may hold a port or a file that its pod needs again.
        for found in self.host.runtime.clone().found().await {
            self.found.entry(found.which.uid.clone()).or_default().push(found);
        }
        let prefix = || KeyRange::prefix(objects::kind_prefix("", "pods"));
        let state = tokio::select! {
            state = self.fresh_state() => state,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let runtime = self.host.runtime.clone();
        let mut watcher: Option<Watcher> = None;
        let mut registered = self.host.registered.clone();
        self.begin(&state).await;
        let mut next = state.revision().next();
        loop {
            self.step_due();
            if self.leaving && self.entries.values().all(|entry| !entry.record.alive()) {
                return;
            }
            if watcher.is_none() {
                match self.host.store.watch(prefix(), next) {
                    Ok(made) => watcher = Some(made),
                    Err(store::Error::Compacted { .. }) => {
                        let state = self.host.store.snapshot();
                        self.all_anew(&state);
                        next = state.revision().next();
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "pods can't be watched any more");
                        return;
                    }
                }
            }
            let wake = self.next_wake();
            let clock = self.host.clock;
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            let changes = async {
                match &mut watcher {
                    Some(watcher) => watcher.changes().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changes = changes => match changes {
                    Ok((events, state)) => events.iter().for_each(|event| self.changed(event, &state)),
                    Err(store::Error::Compacted { oldest, .. }) => {
                        next = oldest;
                        watcher = None;
                        let state = self.host.store.snapshot();
                        self.all_anew(&state);
                        next = next.max(state.revision().next());
                    }
                    Err(_) => return,
                },
                Some(report) = self.news.recv() => {
                    self.heard(report);
                    while let Ok(report) = self.news.try_recv() {
                        self.heard(report);
                    }
                }
                Trouble { which, why } = runtime.trouble() => self.in_trouble(&which, &why),
                () = sleep => {}
                Ok(()) = registered.changed() => self.in_another_epoch(),
                Ok(_) = stop.wait_for(|stop| *stop), if !self.leaving => self.leave(),
                Some(_) = self.work.join_next() => {}
            }
        }
    }

    /// A state that is no older than now. A host that was away must not start pods that were replaced
    /// elsewhere, so without a quorum nothing starts.
    async fn fresh_state(&self) -> Arc<State> {
        let mut leadership = self.host.store.leadership();
        loop {
            leadership.borrow_and_update();
            match self.host.store.read().await {
                Ok(state) => return state,
                Err(error) => tracing::debug!(%error, "waiting for the store before pods start"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                _ = leadership.changed() => {}
            }
        }
    }

    async fn begin(&mut self, state: &Arc<State>) {
        self.all_anew(state);
        let uids: BTreeSet<String> = self.entries.keys().cloned().collect();
        let unused = {
            let mut book = self.host.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            book.keep_only(|uid| uids.contains(uid))
        };
        for address in unused {
            let _ = self.host.network.remove(address).await;
        }
        // Pods that were deleted or replaced elsewhere meanwhile.
        self.found.clear();
        for uid in self.host.runtime.sandboxes() {
            if !uids.contains(&uid) {
                tracing::info!(uid, "a pod of a former life is not this host's any more: ended");
                self.host.runtime.end(&uid).await;
            }
        }
        // What drivers mounted for them is unmounted first, however long that takes.
        let mounted = self.host.csi.pods();
        for uid in &mounted - &uids {
            let host = self.host.clone();
            self.work.spawn_in(info_span!("release a former pod", uid), async move {
                host.csi.release(&uid).await;
                let _ =
                    tasks::blocking(info_span!("remove a former pod"), move || host.folders.remove_pod(&uid))
                        .await;
            });
        }
        let (folders, kept) = (self.host.folders.clone(), &uids | &mounted);
        let _ = tasks::blocking(info_span!("remove former pods"), move || folders.keep_only(&kept)).await;
    }

    /// Takes all pods from a state: those that are not in it are gone.
    fn all_anew(&mut self, state: &Arc<State>) {
        let mut present = HashSet::new();
        for kv in state.range(&KeyRange::prefix(objects::kind_prefix("", "pods"))) {
            present.insert(kv.key.clone());
            self.put(kv, state);
        }
        let gone: Vec<Bytes> = self.by_key.keys().filter(|key| !present.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.gone(key));
    }

    fn changed(&mut self, event: &Event, state: &Arc<State>) {
        match event {
            Event::Put { current, .. } => self.put(current, state),
            Event::Delete { previous, .. } => self.gone(&previous.key),
        }
    }

    fn put(&mut self, kv: &Arc<KeyValue>, state: &State) {
        let known = self.by_key.get(&kv.key).and_then(|uid| self.entries.get(uid));
        // `heard` takes the newest object past the watch, which then brings it, and what came before it, once more.
        if known.is_some_and(|entry| entry.revision >= kv.mod_revision) {
            return;
        }
        // Most pods are others': of them nothing else is read.
        match objects::node_of(&kv.value.bytes()) {
            Ok(node) if node.as_deref() == Some(self.host.name.as_str()) => {}
            Ok(_) => {
                // One of this name was this host's, and its end was never heard of.
                self.gone(&kv.key);
                return;
            }
            Err(_) => return,
        }
        let Ok(pod) = objects::decode::<Pod>(kv) else { return };
        let stored = serde_json::from_slice::<Value>(&kv.value.bytes()).map(|mut v| v["status"].take());
        let stored = without_nulls(stored.unwrap_or_default());
        let id = uid(&pod).to_owned();
        if self.by_key.get(&kv.key).is_some_and(|known| *known != id) {
            self.gone(&kv.key);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.take(pod);
            entry.stored = stored;
            entry.revision = kv.mod_revision;
            entry.wake = Some(Duration::ZERO);
            return;
        }
        let mut record = resume(&pod, self.host.clock.now());
        record.refused = refusal(&self.host, &pod, state);
        if let (Some(why), None) = (&record.refused, &pod.metadata.deletion_timestamp) {
            self.host.tell(&pod, None, true, "FailedCreatePodSandBox", why.clone());
        }
        self.by_key.insert(kv.key.clone(), id.clone());
        let allocated = former_allocation(&self.host, &pod);
        let mut entry = Entry::new(kv, pod, allocated, stored, record);
        let known = self.found.remove(&id);
        if known.is_none() {
            admit(&self.host, &mut entry);
        }
        self.entries.insert(id.clone(), entry);
        if let Some(found) = known {
            self.take_over(&id, found);
        }
    }

    /// Carries on with what a former agent started of a pod.
    fn take_over(&mut self, id: &str, found: Vec<Found>) {
        let (host, now) = (self.host.clone(), self.host.clock.now());
        let Some(entry) = self.entries.get_mut(id) else { return };
        let pod = entry.pod.clone();
        let Some(address) = host.address_of(&pod) else { return };
        entry.record.preparation = Preparation::Done { address };
        entry.told_started = true;
        for Found { which, begun, exit } in found {
            let name = which.container.as_str();
            let Some(spec) = container(&pod, name) else { continue };
            let mut spec = spec.into_owned();
            host.complete_from_image(&pod, &mut spec);
            let past = take_over(&pod, &spec, &mut entry.record, which.attempt, begun.since, now);
            if exit.is_some() {
                let full = container_id(id, name, which.attempt);
                let outcome = outcome(&host, &pod, &spec, &which, exit);
                entry.record.exited(&full, name, which.attempt, outcome, now);
                continue;
            }
            let (started, ends) = begin(&host, &spec, &which, address, begun);
            let (target, reports) = (*started.target.clone(), self.reports.clone());
            entry.processes.insert(name.to_owned(), started);
            self.work.spawn_in(
                info_span!("container", pod = subject(&pod), container = which.container),
                watch_over(host.clone(), pod.clone(), target, ends, Some(past), reports),
            );
        }
        entry.record.resume_resize(&pod);
        if is_over(&pod) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        // Its address is this host's again, and its files are brought up to date.
        self.work.spawn_in(info_span!("take over", pod = subject(&pod)), async move {
            let subject = subject(&pod);
            if let Err(error) = host.take_again(pod).await {
                tracing::warn!(pod = subject, %error, "a pod that was taken over keeps what it has");
            }
        });
    }

    /// A pod's object is gone: whatever runs is killed.
    fn gone(&mut self, key: &Bytes) {
        let Some(id) = self.by_key.remove(key) else { return };
        let now = self.host.clock.now();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.gone = true;
            entry.wake = Some(Duration::ZERO);
            must_end(&mut entry.record, Then::Forget, now.elapsed);
        }
    }

    /// What stops with the lease says so anew.
    fn in_another_epoch(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.record.is_single) {
            entry.wake = Some(Duration::ZERO);
        }
    }

    fn in_trouble(&self, which: &Which, why: &str) {
        let Some(entry) = self.entries.get(&which.uid) else { return };
        let name = which.container.as_str();
        let message = format!("What container {name} prints is lost, its log can't be written: {why}");
        tracing::warn!(
            pod = subject(&entry.pod),
            container = name,
            why,
            "a container's log can't be written"
        );
        self.host.tell(&entry.pod, Some(name), true, "FailedWriteLog", message);
    }

    fn leave(&mut self) {
        self.leaving = true;
        let deadline = self.host.clock.now().elapsed + SHUTDOWN_GRACE;
        for entry in self.entries.values_mut() {
            must_end(&mut entry.record, Then::Stay, deadline);
            entry.wake = Some(Duration::ZERO);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let of_entries = self.entries.values().filter_map(|entry| entry.wake).min();
        Some(of_entries.map_or(self.refresh_at, |wake| wake.min(self.refresh_at)))
    }

    /// Decides for every pod that something happened to or whose time has come.
    fn step_due(&mut self) {
        let now = self.host.clock.now();
        judge_deferred(&self.host, &mut self.entries);
        let due: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.wake.is_some_and(|wake| wake <= now.elapsed))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.step(&id, now);
        }
        self.entries.retain(|_, entry| !(entry.gone && entry.finished));
        if now.elapsed >= self.refresh_at {
            self.refresh_at = now.elapsed + REFRESH;
            self.refresh_files();
        }
    }

    fn step(&mut self, id: &str, now: Now) {
        judge_resize(&self.host, &mut self.entries, id);
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.bind(&self.host);
        let decision = decide(&entry.pod, &mut entry.record, now);
        entry.wake = decision.wake;
        if entry.record.stopping {
            for process in entry.processes.values() {
                process.ending.send_replace(true);
            }
        }
        if is_over(&entry.pod) && entry.record.is_at_rest() && !entry.released && !entry.record.finishing {
            // It never runs again, but its object may stay for good: what it wrote must not stay as long, and what a shim of its own
            // holds is only what was left behind. A pod that fails while it is prepared waits for that: beside it, a volume would be
            // mounted, and a shim made, after the last look.
            entry.released = true;
            let (host, id) = (self.host.clone(), id.to_owned());
            self.work.spawn_in(info_span!("end pod", uid = id), async move { host.put_away(&id).await });
        }
        for action in decision.actions {
            carry_out(&self.host, &self.reports, &mut self.work, entry, action, now);
        }
        note(&self.host, entry);
        if !self.leaving {
            say(&self.host, &self.reports, &mut self.work, entry, now);
        }
    }

    fn refresh_files(&mut self) {
        for entry in self.entries.values() {
            let from_objects = entry.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|volume| {
                volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some()
            });
            let Preparation::Done { address } = entry.record.preparation else { continue };
            if entry.released {
                continue;
            }
            if self.host.csi.has_mounted(uid(&entry.pod))
                && entry.record.ending.is_none()
                && !is_over(&entry.pod)
            {
                let (host, pod) = (self.host.clone(), entry.pod.clone());
                self.work.spawn_in(info_span!("keep volumes", pod = subject(&pod)), async move {
                    host.keep_volumes(&pod, address).await;
                });
            }
            if from_objects && entry.record.ending.is_none() {
                let (host, pod) = (self.host.clone(), entry.pod.clone());
                self.work.spawn_in(info_span!("refresh files", pod = subject(&pod)), async move {
                    if let Err(error) = host.renew_tokens(&pod).await {
                        tracing::debug!(pod = subject(&pod), %error, "a pod keeps the tokens that it has");
                    }
                    let of = pod.clone();
                    let done =
                        tasks::blocking(debug_span!("write files"), move || host.refresh(&of, address)).await;
                    if let Ok(Err(error)) = done {
                        tracing::debug!(pod = subject(&pod), %error, "a pod's files stay as they were");
                    }
                });
            }
        }
    }

    fn heard(&mut self, report: Report) {
        let now = self.host.clock.now();
        let id = match &report {
            Report::Prepared(id, _) | Report::Written(id, _) | Report::Finished(id) => id.clone(),
            Report::Evicted(id, ..) | Report::Resized(id, ..) => id.clone(),
            Report::Started(which, _) | Report::Exited(which, ..) => which.uid.clone(),
            Report::Found(which, _) | Report::PreStopDone(which, _) => which.uid.clone(),
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.wake = Some(Duration::ZERO);
        match report {
            Report::Prepared(_, result) => prepared(&self.host, entry, result, now),
            Report::Started(which, result) => started(&self.host, entry, &which, result, now),
            Report::Exited(which, outcome) => {
                let Which { container, attempt, .. } = &which;
                let full = container_id(&which.uid, container, *attempt);
                entry.record.exited(&full, container, *attempt, outcome, now);
                entry.processes.remove(container);
            }
            Report::Found(which, finding) => found(&self.host, entry, &which, finding, now),
            Report::PreStopDone(which, result) => {
                if let Err(why) = result {
                    let message = format!("PreStopHook failed: {why}");
                    let name = Some(which.container.as_str());
                    self.host.tell(&entry.pod, name, true, "FailedPreStopHook", message);
                }
                entry.record.pre_stop_done(&which.container, which.attempt);
            }
            Report::Resized(_, resizing, done) => resized(&self.host, entry, resizing, done, now),
            Report::Written(_, result) => {
                entry.writing = false;
                match result {
                    Ok(()) => entry.retry_wait = Duration::ZERO,
                    Err(error) => {
                        let pod = subject(&entry.pod);
                        tracing::debug!(pod, %error, "a pod's status was not written");
                        entry.last_patch = None;
                        entry.retry_wait =
                            (entry.retry_wait * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
                        entry.retry_after = now.elapsed + entry.retry_wait;
                    }
                }
                let state = self.host.store.snapshot();
                let key = entry.key.clone();
                match state.get(&key) {
                    // Before the watch brings it: compared with the status before it, the same change would be due
                    // again.
                    Some(kv) => self.put(&kv.clone(), &state),
                    None => self.gone(&key),
                }
            }
            Report::Evicted(_, failure, grace) => evicted(&self.host, entry, failure, grace, now),
            Report::Finished(_) => {
                entry.finished = true;
                let key = entry.key.clone();
                if self.host.store.snapshot().get(&key).is_none() {
                    self.gone(&key);
                }
            }
        }
    }
}
