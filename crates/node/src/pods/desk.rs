//! The desk: one task that knows all pods of the host, hears what happens, and has decisions carried out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use store::{Event, KeyRange, KeyValue, Revision, State, Watcher};
use tasks::SpawnIn;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info_span;

use super::PodHost;
use super::acting::{carry_out, say};
use super::closing::Closing;
use super::entry::{Entry, evicted, found, note, prepared, started};
use super::former::fresh_state;
use super::handler::{admit, refusal};
use super::life::Report;
use super::mirrors::Mirror;
use super::pod_host::mirrored;
use super::resizing::{former_allocation, judge_deferred, judge_resize, resized};
use crate::clock::Now;
use crate::manifests::StaticPods;
use crate::pod::{Then, container_id, decide, is_over, must_end, resume, subject, uid, without_nulls};
use crate::runtime::{Found, Trouble, Which};

/// How long pods have to end when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How long after that the agent waits for what doesn't die, or is still being made: it may be in a runtime that doesn't answer.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(8);
/// How often files from ConfigMaps and Secrets are brought up to date.
const REFRESH: Duration = Duration::from_secs(20);

/// How the agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It isn't.
    No,
    /// Its host shuts down, and pods end in order.
    InOrder,
    /// Pods end at once.
    Now,
}

/// The pods of the host.
pub(crate) struct Desk {
    pub(super) host: Arc<PodHost>,
    pub(super) entries: HashMap<String, Entry>,
    /// The uids of the API's pods by their keys. The keys of static pods are in the host's book.
    by_key: HashMap<Bytes, String>,
    /// What former agents started, by the uid of its pod, until its pod is known.
    pub(super) found: HashMap<String, Vec<Found>>,
    /// Those of them that nobody wants and that don't end yet, by uid.
    pub(super) former: BTreeSet<String>,
    manifests: watch::Receiver<Option<StaticPods>>,
    /// The static pods that there should be.
    pub(super) wanted: StaticPods,
    /// The mirrors that are being removed, by uid.
    pub(super) removing: HashSet<String>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    news: mpsc::UnboundedReceiver<Report>,
    pub(super) work: JoinSet<()>,
    /// The shutdown of the host, once it is under way.
    pub(super) closing: Option<Closing>,
    pub(super) leaving: bool,
    refresh_at: Duration,
    /// When a shutdown has to be looked at again.
    pub(super) close_at: Option<Duration>,
    /// When the agent ends, whatever is left of its pods.
    leave_at: Option<Duration>,
}

impl Desk {
    /// The desk of a host, whose static pods are in `manifests` once its folder was looked at.
    pub(crate) fn new(host: Arc<PodHost>, manifests: watch::Receiver<Option<StaticPods>>) -> Self {
        let (reports, news) = mpsc::unbounded_channel();
        Desk {
            host,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            found: HashMap::new(),
            former: BTreeSet::new(),
            manifests,
            wanted: StaticPods::default(),
            removing: HashSet::new(),
            reports,
            news,
            work: JoinSet::new(),
            closing: None,
            leaving: false,
            refresh_at: REFRESH,
            close_at: None,
            leave_at: None,
        }
    }

    /// Where news for the desk goes.
    pub(crate) fn reports(&self) -> mpsc::UnboundedSender<Report> {
        self.reports.clone()
    }

    /// Works until `stop` says so and all processes are dead, or the store ended.
    pub(crate) async fn run(self, stop: watch::Receiver<Stop>) {
        let runtime = self.host.runtime.clone();
        self.work(stop.clone()).await;
        if *stop.borrow() != Stop::No {
            runtime.end_all().await;
        }
    }

    async fn work(mut self, mut stop: watch::Receiver<Stop>) {
        // What no shim holds of a former life is ended: it may hold a port or a file that its pod needs again.
        for found in self.host.runtime.clone().found().await {
            self.found.entry(found.which.uid.clone()).or_default().push(found);
        }
        // Before anything else: what runs of static pods isn't ended for want of them.
        tokio::select! {
            _ = self.manifests.wait_for(Option::is_some) => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => return,
        }
        let wanted = self.manifests.borrow_and_update().clone();
        let wanted = wanted.unwrap_or_default();
        self.end_former_static(&wanted).await;
        self.are_wanted(wanted);
        let prefix = || KeyRange::prefix(objects::kind_prefix("", "pods"));
        let mut fresh = Box::pin(fresh_state(self.host.store.clone()));
        let runtime = self.host.runtime.clone();
        let mut late = runtime.found_late();
        let mut is_late_heard = false;
        let mut watcher: Option<Watcher> = None;
        let mut registered = self.host.registered.clone();
        // Static pods wait for nobody, and all others for the state.
        let mut next: Option<Revision> = None;
        loop {
            self.close();
            self.step_due();
            if self.leaving && self.entries.values().all(|entry| !entry.record.alive()) {
                return;
            }
            if self.leave_at.is_some_and(|at| at <= self.host.clock.now().elapsed) {
                tracing::warn!("the agent ends before all of its pods do");
                return;
            }
            if let (None, Some(from)) = (&watcher, next) {
                match self.host.store.watch(prefix(), from) {
                    Ok(made) => watcher = Some(made),
                    Err(store::Error::Compacted { .. }) => {
                        let state = self.host.store.snapshot();
                        self.all_anew(&state);
                        next = Some(state.revision().next());
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "pods can't be watched any more");
                        return;
                    }
                }
            }
            let wake = self.next_wake();
            let is_closing = self.closing.is_some();
            let is_news = |stop: Stop| stop == Stop::Now || stop == Stop::InOrder && !is_closing;
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
            let (mut begins, mut is_late) = (None, false);
            tokio::select! {
                state = &mut fresh, if next.is_none() => begins = Some(state),
                changes = changes => match changes {
                    Ok((events, state)) => events.iter().for_each(|event| self.changed(event, &state)),
                    Err(store::Error::Compacted { oldest, .. }) => {
                        watcher = None;
                        let state = self.host.store.snapshot();
                        self.all_anew(&state);
                        next = Some(oldest.max(state.revision().next()));
                    }
                    Err(_) => return,
                },
                Some(report) = self.news.recv() => {
                    self.heard(report);
                    while let Ok(report) = self.news.try_recv() {
                        self.heard(report);
                    }
                }
                found = &mut late, if !is_late_heard => {
                    (is_late_heard, is_late) = (true, true);
                    self.found_late(found, next.is_some());
                }
                Trouble { which, why } = runtime.trouble() => self.in_trouble(&which, &why),
                () = sleep => {}
                Ok(()) = registered.changed() => self.in_another_epoch(),
                Ok(()) = self.manifests.changed() => {
                    let wanted = self.manifests.borrow_and_update().clone();
                    self.are_wanted(wanted.unwrap_or_default());
                }
                Ok(stop) = async { stop.wait_for(|stop| is_news(*stop)).await.map(|stop| *stop) }, if !self.leaving => {
                    match stop {
                        Stop::InOrder => self.begin_closing(),
                        Stop::Now | Stop::No => self.leave(),
                    }
                }
                Some(_) = self.work.join_next() => {}
            }
            if let Some(state) = begins {
                self.begin(&state).await;
                next = Some(state.revision().next());
            } else if is_late && next.is_some() {
                // They waited for that.
                self.give_back().await;
            }
        }
    }

    /// Takes all pods from a state: those that are not in it are gone.
    pub(super) fn all_anew(&mut self, state: &Arc<State>) {
        let mut present = HashSet::new();
        for kv in state.range(&KeyRange::prefix(objects::kind_prefix("", "pods"))) {
            present.insert(kv.key.clone());
            self.put(kv, state);
        }
        let mirrors = self.host.static_pods.list().into_iter().map(|(key, _)| key);
        let known = self.by_key.keys().cloned().chain(mirrors);
        let gone: Vec<Bytes> = known.filter(|key| !present.contains(key)).collect();
        gone.iter().for_each(|key| self.gone(key));
    }

    /// Takes what the newest state here has under a key.
    fn look_up(&mut self, key: &Bytes) {
        let state = self.host.store.snapshot();
        match state.get(key) {
            Some(kv) => self.put(&kv.clone(), &state),
            None => self.gone(key),
        }
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
        let Some((pod, stored)) = read(kv) else { return };
        let id = uid(&pod).to_owned();
        // First of all: a mirror may have the name of a pod whose end was never heard of.
        if self.by_key.get(&kv.key).is_some_and(|known| *known != id) {
            self.gone(&kv.key);
        }
        if mirrored(&pod).is_some() && !self.entries.contains_key(&id) {
            self.sees_mirror(kv, pod, stored);
            return;
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
        let mut entry = Entry::new((kv.key.clone(), kv.mod_revision), pod, allocated, stored, record);
        let known = self.found.remove(&id);
        if known.is_none() && !self.host.awaits_runtime(&entry.pod) {
            admit(&self.host, &mut entry, &self.entries);
        }
        self.entries.insert(id.clone(), entry);
        if let Some(found) = known {
            self.take_over(&id, found);
        }
    }

    /// A pod's object is gone: whatever runs is killed.
    fn gone(&mut self, key: &Bytes) {
        self.lost_mirror(key);
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

    pub(super) fn leave(&mut self) {
        self.leaving = true;
        let deadline = self.host.clock.now().elapsed + SHUTDOWN_GRACE;
        self.leave_at.get_or_insert(deadline + SHUTDOWN_PATIENCE);
        for entry in self.entries.values_mut() {
            must_end(&mut entry.record, Then::Stay, deadline);
            entry.wake = Some(Duration::ZERO);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let of_entries = self.entries.values().filter_map(|entry| entry.wake);
        of_entries.chain([self.refresh_at]).chain(self.close_at).chain(self.leave_at).min()
    }

    /// Decides for every pod that something happened to or whose time has come.
    fn step_due(&mut self) {
        let now = self.host.clock.now();
        let due: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.wake.is_some_and(|wake| wake <= now.elapsed))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.step(&id, now);
        }
        let is_gone = |entry: &Entry| entry.gone && entry.finished;
        let of_static = self.entries.values().filter(|entry| entry.mirror.is_some() && is_gone(entry));
        let gone: Vec<Bytes> = of_static.map(|entry| entry.key.clone()).collect();
        self.entries.retain(|_, entry| !is_gone(entry));
        self.are_gone(&gone);
        // After that: what they had is there for others at once.
        judge_deferred(&self.host, &mut self.entries);
        if now.elapsed >= self.refresh_at {
            self.refresh_at = now.elapsed + REFRESH;
            self.refresh_files();
        }
    }

    fn step(&mut self, id: &str, now: Now) {
        if let Some(entry) = self.entries.get_mut(id)
            && self.host.awaits_runtime(&entry.pod)
        {
            // Until it answers.
            entry.wake = None;
            return;
        }
        judge_resize(&self.host, &mut self.entries, id);
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.bind(&self.host);
        entry.note_end();
        let decision = decide(&entry.pod, &mut entry.record, now);
        entry.wake = decision.wake;
        if entry.record.stopping {
            entry.ends.send_replace(true);
            for process in entry.processes.values() {
                process.ending.send_replace(true);
            }
        }
        if is_over(&entry.pod) && entry.record.is_at_rest() && !entry.released && !entry.record.finishing {
            // It never runs again, but its object may stay for good: what it wrote must not stay as long, and what a shim of its own
            // holds is only what was left behind. A pod that fails while it is prepared waits for that: beside it, a volume would be
            // mounted, and a shim made, after the last look.
            entry.released = true;
            let (host, pod) = (self.host.clone(), entry.pod.clone());
            self.work.spawn_in(info_span!("end pod", uid = id), async move { host.put_away(&pod).await });
        }
        for action in decision.actions {
            carry_out(&self.host, &self.reports, &mut self.work, entry, action, now);
        }
        note(&self.host, entry);
        if !self.leaving {
            entry.keep_mirror(&self.host, &self.reports, &mut self.work, now);
            say(&self.host, &self.reports, &mut self.work, entry, now);
        }
    }

    fn heard(&mut self, report: Report) {
        let now = self.host.clock.now();
        let id = match &report {
            Report::Mirrored(id, _)
            | Report::MirrorRemoved(id)
            | Report::Prepared(id, _)
            | Report::Written(id, _)
            | Report::Kept(id)
            | Report::Finished(id) => id.clone(),
            Report::Evicted(id, ..) | Report::Resized(id, ..) => id.clone(),
            Report::Started(which, _) | Report::Exited(which, ..) => which.uid.clone(),
            Report::Found(which, _) | Report::PreStopDone(which, _) => which.uid.clone(),
        };
        let report = match report {
            Report::Mirrored(_, result) => return self.mirror_made(&id, result),
            Report::MirrorRemoved(_) => return self.mirror_removed(&id),
            report => report,
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.wake = Some(Duration::ZERO);
        match report {
            Report::Mirrored(..) | Report::MirrorRemoved(_) => {}
            Report::Kept(_) => entry.mirror.iter_mut().for_each(Mirror::was_kept),
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
                // Before the watch brings it: compared with the status before it, the same change would be due again.
                let key = entry.key.clone();
                match entry.mirror {
                    Some(_) => self.look_up_mirror(&key),
                    None => self.look_up(&key),
                }
            }
            Report::Evicted(_, failure, grace) => evicted(&self.host, entry, failure, grace, now),
            Report::Finished(_) => {
                entry.finished = true;
                // What ends with the agent is run by the next one, which knows by its record what became of it.
                entry.gone |= entry.mirror.is_some() && !self.leaving;
                let key = entry.key.clone();
                if self.host.store.snapshot().get(&key).is_none() {
                    self.gone(&key);
                }
            }
        }
    }
}

/// A stored pod, and its status as it is stored.
pub(super) fn read(kv: &KeyValue) -> Option<(Pod, Value)> {
    let pod = objects::decode::<Pod>(kv).ok()?;
    let stored = serde_json::from_slice::<Value>(&kv.value.bytes()).map(|mut v| v["status"].take());
    Some((pod, without_nulls(stored.unwrap_or_default())))
}
