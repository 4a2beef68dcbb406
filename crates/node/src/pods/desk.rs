//! The desk: one task that knows all pods of the host, hears what happens, and has decisions carried out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use objects::Reader;
use serde_json::Value;
use store::{Event, KeyRange, KeyValue, State, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Host;
use super::life::{Report, Started, Which, live, pre_stop};
use super::writing::{finish, write_status};
use crate::clock::Now;
use crate::host::{kill_leftovers, signal_group};
use crate::pod::{
    Action, Preparation, ProbeKind, Record, Stage, StartError, Then, container, container_id, decide,
    difference, is_ready, must_end, resume, status, subject, uid,
};
use crate::probe::Finding;

/// How long pods have to end when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often files from ConfigMaps and Secrets are brought up to date.
const REFRESH: Duration = Duration::from_secs(20);
/// The same change of a status is not written again sooner than this: whoever undoes it would do so again.
const SAME_AGAIN: Duration = Duration::from_secs(1);

/// One pod of the host.
struct Entry {
    key: Bytes,
    pod: Arc<Pod>,
    /// Its status as stored.
    stored: Value,
    revision: u64,
    record: Record,
    processes: HashMap<String, Started>,
    wake: Option<Duration>,
    writing: bool,
    retry_after: Duration,
    retry_wait: Duration,
    last_patch: Option<(Value, Duration)>,
    gone: bool,
    finished: bool,
    told_started: bool,
    told_ready: bool,
    told_failure: String,
}

/// The pods of the host.
pub(crate) struct Desk {
    host: Arc<Host>,
    entries: HashMap<String, Entry>,
    by_key: HashMap<Bytes, String>,
    reports: mpsc::UnboundedSender<Report>,
    news: mpsc::UnboundedReceiver<Report>,
    work: JoinSet<()>,
    leaving: bool,
    refresh_at: Duration,
}

impl Desk {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        let (reports, news) = mpsc::unbounded_channel();
        Desk {
            host,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            reports,
            news,
            work: JoinSet::new(),
            leaving: false,
            refresh_at: REFRESH,
        }
    }

    /// Works until `stop` says true and all processes are dead, or the store ended.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // Nothing of a former life may hold a port or a file that its pod needs again.
        let former = self.host.folders.pods();
        let _ = tokio::task::spawn_blocking(move || kill_leftovers(&former)).await;
        let prefix = || KeyRange::prefix(objects::kind_prefix("", "pods"));
        let state = tokio::select! {
            state = self.fresh_state() => state,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let mut watcher: Option<Watcher> = None;
        self.begin(&state).await;
        let mut next = state.revision() + 1;
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
                        next = state.revision() + 1;
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
                        next = next.max(state.revision() + 1);
                    }
                    Err(_) => return,
                },
                Some(report) = self.news.recv() => {
                    self.heard(report);
                    while let Ok(report) = self.news.try_recv() {
                        self.heard(report);
                    }
                }
                () = sleep => {}
                _ = stop.wait_for(|stop| *stop), if !self.leaving => self.leave(),
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
        let folders = self.host.folders.clone();
        let _ = tokio::task::spawn_blocking(move || folders.keep_only(&uids)).await;
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
        if known.is_some_and(|entry| entry.revision >= kv.mod_revision) {
            return;
        }
        let Ok(pod) = objects::decode::<Pod>(kv) else { return };
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(&self.host.name) {
            return;
        }
        let stored = serde_json::from_slice::<Value>(&kv.value).map(|mut v| v["status"].take());
        let stored = stored.unwrap_or_default();
        let id = uid(&pod).to_owned();
        if self.by_key.get(&kv.key).is_some_and(|known| *known != id) {
            self.gone(&kv.key);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pod = Arc::new(pod);
            entry.stored = stored;
            entry.revision = kv.mod_revision;
            entry.wake = Some(Duration::ZERO);
            return;
        }
        let mut record = resume(&pod, self.host.clock.now());
        record.refused = refusal(&pod, state);
        if let (Some(why), None) = (&record.refused, &pod.metadata.deletion_timestamp) {
            self.host.recorder.tell(&pod, None, true, "FailedCreatePodSandBox", why.clone());
        }
        self.by_key.insert(kv.key.clone(), id.clone());
        let entry = Entry {
            key: kv.key.clone(),
            pod: Arc::new(pod),
            told_ready: is_ready(&stored),
            stored,
            revision: kv.mod_revision,
            record,
            processes: HashMap::new(),
            wake: Some(Duration::ZERO),
            writing: false,
            retry_after: Duration::ZERO,
            retry_wait: Duration::ZERO,
            last_patch: None,
            gone: false,
            finished: false,
            told_started: false,
            told_failure: String::new(),
        };
        self.entries.insert(id, entry);
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
        let Some(entry) = self.entries.get_mut(id) else { return };
        let decision = decide(&entry.pod, &mut entry.record, now);
        entry.wake = decision.wake;
        for action in decision.actions {
            carry_out(&self.host, &self.reports, &mut self.work, entry, action, now);
        }
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
            if from_objects && entry.record.ending.is_none() {
                let (host, pod) = (self.host.clone(), entry.pod.clone());
                self.work.spawn(async move {
                    let of = pod.clone();
                    let done = tokio::task::spawn_blocking(move || host.refresh(&of, address)).await;
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
            Report::Started(which, _) | Report::Exited(which, ..) => which.uid.clone(),
            Report::Found(which, _) | Report::PreStopDone(which, _) => which.uid.clone(),
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.wake = Some(Duration::ZERO);
        match report {
            Report::Prepared(_, result) => prepared(&self.host, entry, result, now),
            Report::Started(which, result) => started(&self.host, entry, &which, result, now),
            Report::Exited(which, code, signal) => {
                let Which { container, attempt, .. } = &which;
                let full = container_id(&which.uid, container, *attempt);
                entry.record.exited(&full, container, *attempt, code, signal, now);
                entry.processes.remove(container);
            }
            Report::Found(which, finding) => found(&self.host, entry, &which, finding, now),
            Report::PreStopDone(which, result) => {
                if let Err(why) = result {
                    let message = format!("PreStopHook failed: {why}");
                    let name = Some(which.container.as_str());
                    self.host.recorder.tell(&entry.pod, name, true, "FailedPreStopHook", message);
                }
                entry.record.pre_stop_done(&which.container, which.attempt);
            }
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
                    Some(kv) => self.put(&kv.clone(), &state),
                    None => self.gone(&key),
                }
            }
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

/// Why this host won't run the pod, if it won't.
fn refusal(pod: &Pod, state: &State) -> Option<String> {
    let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
    if name == "host" {
        return None;
    }
    if name.is_empty() {
        let why = "the pod names no RuntimeClass and this host runs no containers: this version runs pods of \
                   RuntimeClass host (spec.runtimeClassName: host)";
        return Some(why.into());
    }
    let class = Reader::<RuntimeClass>::get(state, "", name);
    if class.is_some_and(|class| class.handler == "host") {
        return None;
    }
    Some(format!(
        "RuntimeClass {name:?} has no runtime on this host: this version runs pods of RuntimeClass host"
    ))
}

fn prepared(host: &Host, entry: &mut Entry, result: Result<std::net::IpAddr, (String, String)>, now: Now) {
    match &result {
        Ok(_) => entry.told_failure.clear(),
        Err((_, message)) if entry.told_failure == *message => {}
        Err((reason, message)) => {
            entry.told_failure.clone_from(message);
            let word = if reason == "ContainerCreating" { "FailedMount" } else { "FailedCreatePodSandBox" };
            host.recorder.tell(&entry.pod, None, true, word, message.clone());
        }
    }
    entry.record.prepared(result, now);
}

fn started(host: &Host, entry: &mut Entry, which: &Which, result: Result<Started, StartError>, now: Now) {
    let Some(spec) = container(&entry.pod, &which.container) else { return };
    let probes = (spec.startup_probe.is_some(), spec.readiness_probe.is_some());
    let name = which.container.as_str();
    let full = container_id(&which.uid, name, which.attempt);
    let tell = |warning, reason, message: String| {
        host.recorder.tell(&entry.pod, Some(name), warning, reason, message);
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
            entry.processes.insert(name.to_owned(), process);
            entry.record.started(&full, name, which.attempt, Ok(probes), now);
        }
        Err(error) => {
            let message = match &error {
                StartError::Config(why) => format!("Error: {why}"),
                StartError::Run(why) => format!("Error: failed to start the process: {why}"),
            };
            if entry.told_failure != message {
                tell(true, "Failed", message.clone());
                entry.told_failure = message;
            }
            entry.record.started(&full, name, which.attempt, Err(error), now);
        }
    }
}

fn found(host: &Host, entry: &mut Entry, which: &Which, finding: Finding, now: Now) {
    let name = which.container.as_str();
    let word = |kind: ProbeKind| match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    };
    let Some(spec) = container(&entry.pod, name) else { return };
    match finding {
        Finding::PostStartFailed(why) => {
            let message = format!("PostStartHook failed: {why}");
            host.recorder.tell(&entry.pod, Some(name), true, "FailedPostStartHook", message);
            let seconds = entry.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
            let grace = Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30));
            entry.record.must_restart(name, which.attempt, grace, now);
        }
        Finding::Failure(kind, why) => {
            let message = format!("{} probe failed: {why}", word(kind));
            host.recorder.tell(&entry.pod, Some(name), true, "Unhealthy", message);
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
                host.recorder.tell(&entry.pod, Some(name), false, "Killing", message);
            }
            let readiness = spec.readiness_probe.is_some();
            entry.record.probed(name, which.attempt, kind, healthy, readiness, grace, now);
        }
    }
}

fn carry_out(
    host: &Arc<Host>,
    reports: &mpsc::UnboundedSender<Report>,
    work: &mut JoinSet<()>,
    entry: &mut Entry,
    action: Action,
    now: Now,
) {
    let pod = entry.pod.clone();
    let id = uid(&pod).to_owned();
    let (host, reports) = (host.clone(), reports.clone());
    match action {
        Action::Prepare => {
            work.spawn(async move {
                let result = host.prepare(pod).await;
                let _ = reports.send(Report::Prepared(id, result));
            });
        }
        Action::Start { container, attempt } => {
            let Preparation::Done { address } = entry.record.preparation else { return };
            let which = Which { uid: id, container, attempt };
            work.spawn(live(host, pod, which, address, reports));
        }
        Action::PreStop { container, attempt, limit } => {
            let which = Which { uid: id, container, attempt };
            match entry.processes.get(&which.container) {
                Some(process) => {
                    work.spawn(pre_stop(process.target.clone(), which, limit, reports));
                }
                None => {
                    let _ = reports.send(Report::PreStopDone(which, Ok(())));
                }
            }
        }
        Action::Signal { container, kill, .. } => {
            if let Some(process) = entry.processes.get(&container) {
                signal_group(process.pid, kill);
            }
        }
        Action::Finish(then) => {
            let wanted = status(&pod, &entry.stored, &entry.record, host.address, now);
            let last = difference(&entry.stored, &wanted);
            work.spawn(finish(host, pod, then, last, reports));
        }
        Action::Event { warning, reason, message, container } => {
            host.recorder.tell(&pod, container.as_deref(), warning, reason, message);
        }
    }
}

/// Writes the pod's status if it says something else than it should.
fn say(
    host: &Arc<Host>,
    reports: &mpsc::UnboundedSender<Report>,
    work: &mut JoinSet<()>,
    entry: &mut Entry,
    now: Now,
) {
    if entry.gone || entry.record.finishing {
        return;
    }
    let wanted = status(&entry.pod, &entry.stored, &entry.record, host.address, now);
    let ready = is_ready(&wanted);
    if ready && !entry.told_ready {
        let subject = subject(&entry.pod);
        tracing::info!(target: "timeline", what = "pod-ready", subject);
    }
    entry.told_ready = ready;
    if entry.writing {
        return;
    }
    let starting = |record: &Record| {
        let asked = matches!(record.preparation, Preparation::Asked);
        asked || record.containers.values().any(|c| c.stage == Stage::Starting)
    };
    if now.elapsed < entry.record.hold_status_until && starting(&entry.record) {
        return;
    }
    let Some(patch) = difference(&entry.stored, &wanted) else {
        entry.last_patch = None;
        return;
    };
    let mut wait_until = entry.retry_after;
    if let Some((last, at)) = &entry.last_patch
        && *last == patch
    {
        wait_until = wait_until.max(*at + SAME_AGAIN);
    }
    if now.elapsed < wait_until {
        entry.wake = Some(entry.wake.map_or(wait_until, |wake| wake.min(wait_until)));
        return;
    }
    entry.writing = true;
    entry.last_patch = Some((patch.clone(), now.elapsed));
    work.spawn(write_status(host.clone(), entry.pod.clone(), patch, reports.clone()));
}
