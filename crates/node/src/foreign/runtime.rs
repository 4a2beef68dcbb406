//! The runtime of others as the agent knows runtimes.

use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cri::messages::{ContainerState, ContainerStats, NamespaceMode, Texts, UInt64Value};
use cri::{Client, Failure};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::info_span;

use super::cni;
use super::lives::{Ended, Life, Lives, ended, follow_log, time};
use super::resources::changed;
use super::sandboxes::Sandboxes;
use super::session::{attach, exec, exec_within};
use super::{CONTAINER_NAME, Container, NODE, POD_UID, STREAMS};
use crate::container::cgroup::{Amounts, Memory};
use crate::container::{LogProgress, make_room};
use crate::oci::{Namespace, NamespaceKind};
use crate::runtime::{
    Attached, Begun, Exit, Found, Lost, Program, RunError, Runtime, Session, Shape, Streams, Trouble, Usage,
    Which,
};

/// How long a runtime may take to answer when the agent begins, until the agent goes on without knowing what it has.
const COMES_UP: Duration = Duration::from_secs(30);
/// How long it is waited before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a container may take to end that is only asked to, by its runtime's clock: the agent has its own.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the word to end may take to be said: then the runtime waits, and need not be waited for.
const SAY: Duration = Duration::from_secs(10);
/// How long a container that was killed may take to be dead.
const KILL: Duration = Duration::from_secs(60);
/// How long all sandboxes may take to end when the agent stops.
const END_ALL: Duration = Duration::from_secs(60);

/// A runtime of others, with this host's pods in it.
#[derive(Debug)]
pub(crate) struct ForeignRuntime {
    pub(super) client: Client,
    labels: Texts,
    lives: Arc<Lives>,
    sandboxes: Arc<Sandboxes>,
    /// Whether it is known which pods it has.
    is_known: Arc<AtomicBool>,
    /// What becomes the runtime's network plugin, if pods have networks.
    plugin: Option<PathBuf>,
}

fn system(failure: impl Display) -> RunError {
    RunError::System(failure.to_string())
}

fn word(streams: Streams) -> &'static str {
    match streams {
        Streams::Outputs => "outputs",
        Streams::Pipes => "pipes",
        Streams::Terminal => "terminal",
    }
}

fn laid(annotations: &Texts) -> Streams {
    match annotations.get(STREAMS).map(String::as_str) {
        Some("pipes") => Streams::Pipes,
        Some("terminal") => Streams::Terminal,
        _ => Streams::Outputs,
    }
}

/// Which container it is, by its labels and its number.
fn which(labels: &Texts, attempt: Option<u32>) -> Option<Which> {
    let of = |name: &str| labels.get(name).cloned();
    Some(Which { uid: of(POD_UID)?, container: of(CONTAINER_NAME)?, attempt: attempt? })
}

fn usage(stats: &ContainerStats) -> Usage {
    let value = |of: Option<&UInt64Value>| of.map_or(0, |of| of.value);
    let cpu = stats.cpu.as_ref().map_or(0, |cpu| value(cpu.usage_core_nano_seconds.as_ref()));
    let memory = stats.memory.clone().unwrap_or_default();
    Usage {
        cpu: Duration::from_nanos(cpu),
        memory: value(memory.working_set_bytes.as_ref()),
        with_files: value(memory.usage_bytes.as_ref()),
        rss: value(memory.rss_bytes.as_ref()),
        faults: value(memory.page_faults.as_ref()),
        major_faults: value(memory.major_page_faults.as_ref()),
        // The CRI doesn't count them.
        processes: 0,
    }
}

impl ForeignRuntime {
    /// A runtime in which the pods of this host bear the mark `node`, and whose network plugin becomes `plugin`. Called within a tokio
    /// runtime.
    pub(crate) fn new(client: Client, node: String, plugin: Option<PathBuf>) -> Self {
        let labels = Texts::from([(NODE.to_owned(), node)]);
        ForeignRuntime {
            lives: Lives::follow(client.clone(), labels.clone()),
            sandboxes: Arc::new(Sandboxes::new(client.clone(), labels.clone())),
            client,
            labels,
            is_known: Arc::default(),
            plugin,
        }
    }

    /// Whether a pod has its sandbox here, or is about to.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.sandboxes.has(uid)
    }

    /// Whether something of a pod may run here, as far as anybody knows: a runtime that hasn't answered yet may have any.
    pub(crate) fn may_have(&self, uid: &str) -> bool {
        self.has(uid) || !self.is_known.load(Ordering::Acquire)
    }

    /// What the runtime has of this host's pods.
    async fn look_around(&self) -> Result<Vec<Found>, Failure> {
        offer_network(&self.client, self.plugin.clone()).await?;
        let sandboxes = self.sandboxes.found().await?;
        let mut last: HashMap<(String, String), (u32, cri::messages::Container)> = HashMap::new();
        for container in self.client.containers(self.labels.clone()).await? {
            let attempt = container.metadata.as_ref().map(|metadata| metadata.attempt);
            let Some(Which { uid, container: name, attempt }) = which(&container.labels, attempt) else {
                continue;
            };
            let is_held = sandboxes.contains(&(uid.clone(), container.pod_sandbox_id.clone()));
            let is_newer = last.get(&(uid.clone(), name.clone())).is_none_or(|(known, _)| *known < attempt);
            if is_held && is_newer {
                last.insert((uid, name), (attempt, container));
            }
        }
        let mut found = Vec::new();
        for ((uid, container), (attempt, there)) in last {
            let status = match self.client.container_status(&there.id).await {
                Err(failure) if failure.is_missing() => continue,
                status => status?,
            };
            if status.started_at == 0 {
                // The agent died before it was started. If it can't be removed now, the next life's start does that: no other pod waits.
                if let Err(failure) = self.client.remove_container(&there.id).await {
                    tracing::warn!(uid, container, %failure, "a container that was never started can't be removed");
                }
                continue;
            }
            let begun = Begun { pid: 0, since: time(status.started_at) };
            let end = ended(&status);
            let which = Which { uid, container, attempt };
            let exit = end.and_then(|end| match end {
                Ended::Exit(exit) => Some(exit),
                Ended::Lost => None,
            });
            let life = Life::new(there.id, begun, status.log_path.into(), laid(&status.annotations), end);
            self.lives.begin(which.clone(), life);
            found.push(Found { which, begun, exit });
        }
        for (uid, id) in sandboxes {
            self.sandboxes.take_over(&uid, id).await;
        }
        Ok(found)
    }

    /// Starts a container in its sandbox.
    async fn begin(&self, which: &Which, asked: Container, log: PathBuf) -> Result<Begun, RunError> {
        let Container { mut config, sandbox, streams, target } = asked;
        let id = self.sandboxes.id(&which.uid).await.ok_or(RunError::Gone)?;
        let folder = log.clone();
        let attempt = which.attempt;
        let made =
            tasks::blocking(info_span!("make a log", uid = which.uid), move || make_room(&folder, attempt));
        let made = made.await.map_err(system)?;
        made.map_err(|why| system(format!("can't make the log: {why}")))?;
        if let Some(begun) = self.clear_former(which, &id).await? {
            return Ok(begun);
        }
        config.labels.extend(self.sandboxes.labels(&which.uid));
        config.annotations.insert(STREAMS.into(), word(streams).into());
        if let Some(metadata) = &mut config.metadata {
            metadata.attempt = attempt;
        }
        config.log_path = format!("{}/{attempt}.log", which.container);
        if let Some(target) = target {
            let seen = self.lives.running(&which.uid, &target);
            let seen = seen.ok_or_else(|| RunError::no_target(&target))?;
            let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
            if let Some(options) = security.and_then(|security| security.namespace_options.as_mut()) {
                options.pid = NamespaceMode::Target as i32;
                options.target_id = seen;
            }
        }
        let made = self.client.create_container(&id, config, sandbox).await.map_err(system)?;
        if let Err(failure) = self.client.start_container(&made).await {
            // It may be half started; the next attempt finds it otherwise.
            if let Err(failure) = self.client.remove_container(&made).await {
                tracing::debug!(container = made, %failure, "a container that didn't start can't be removed");
            }
            return Err(system(failure));
        }
        let status = self.client.container_status(&made).await.map_err(system)?;
        let begun = Begun { pid: 0, since: time(status.started_at) };
        let log = log.join(format!("{attempt}.log"));
        self.lives.begin(which.clone(), Life::new(made, begun, log, streams, None));
        Ok(begun)
    }

    /// Takes away what a container's former lives left in a sandbox. One of this very life that runs is it: the agent that started it
    /// didn't hear of it.
    async fn clear_former(&self, which: &Which, sandbox: &str) -> Result<Option<Begun>, RunError> {
        let mut labels = self.sandboxes.labels(&which.uid);
        labels.insert(CONTAINER_NAME.into(), which.container.clone());
        let mut begun = None;
        for old in self.client.containers(labels).await.map_err(system)? {
            let attempt = old.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
            let runs = old.state == ContainerState::Running as i32;
            if runs && attempt == which.attempt && old.pod_sandbox_id == sandbox {
                let status = self.client.container_status(&old.id).await.map_err(system)?;
                let since = Begun { pid: 0, since: time(status.started_at) };
                let life = Life::new(old.id, since, status.log_path.into(), laid(&status.annotations), None);
                self.lives.begin(which.clone(), life);
                begun = Some(since);
                continue;
            }
            self.client.stop_container(&old.id, Duration::ZERO, KILL).await.map_err(system)?;
            self.client.remove_container(&old.id).await.map_err(system)?;
        }
        Ok(begun)
    }

    /// Ends what nobody knew of when the agent began, once the runtime answers.
    fn catch_up(&self) {
        let (client, labels, plugin) = (self.client.clone(), self.labels.clone(), self.plugin.clone());
        // Weak: once this agent is gone, what there is may be the next one's.
        let (sandboxes, is_known) = (Arc::downgrade(&self.sandboxes), self.is_known.clone());
        tasks::spawn(info_span!("end what was not known"), async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                if sandboxes.strong_count() == 0 {
                    return;
                }
                if offer_network(&client, plugin.clone()).await.is_err() {
                    continue;
                }
                let all = client.pod_sandboxes(labels.clone()).await;
                let Some(sandboxes) = sandboxes.upgrade() else { return };
                let Ok(all) = all else { continue };
                for sandbox in all {
                    let uid = sandbox.labels.get(POD_UID).cloned().unwrap_or_default();
                    if !sandboxes.has(&uid) {
                        sandboxes.end(&uid).await;
                    }
                }
                is_known.store(true, Ordering::Release);
                return;
            }
        });
    }
}

/// Has a runtime take our network, if there is one.
async fn offer_network(client: &Client, plugin: Option<PathBuf>) -> Result<(), Failure> {
    let Some(plugin) = plugin else { return Ok(()) };
    let status = client.status().await?;
    let (lists, programs) = cni::places(status.info.get("config"));
    let install = move || cni::install((&lists, &programs), &plugin);
    if let Ok(Err(why)) = tasks::blocking(info_span!("offer a network"), install).await {
        tracing::warn!(%why, "the containers' runtime can't be given pods' network");
    }
    Ok(())
}

impl Runtime for ForeignRuntime {
    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> BoxFuture<'a, Result<Vec<Namespace>, RunError>> {
        async move {
            let Shape::Foreign(wanted) = wanted else { return Err(system("it is another runtime's")) };
            // What ended in a sandbox that is about to go is heard of first.
            let _ = self.lives.look().await;
            self.sandboxes.make(uid, &wanted).await?;
            let network = Namespace { kind: NamespaceKind::Network, path: None };
            Ok(if wanted.network { vec![network] } else { Vec::new() })
        }
        .boxed()
    }

    /// Nobody of ours goes to a container by its process.
    fn first_process(&self, _: &Which) -> Option<i32> {
        None
    }

    fn network<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Option<OwnedFd>> {
        self.sandboxes.network(uid).boxed()
    }

    fn start<'a>(
        &'a self,
        which: &'a Which,
        program: Program,
        log: PathBuf,
    ) -> BoxFuture<'a, Result<Begun, RunError>> {
        async move {
            match program {
                Program::Foreign(asked) => self.begin(which, *asked, log).await,
                Program::Process(_) | Program::Bundle(_) => Err(system("it is another runtime's")),
            }
        }
        .boxed()
    }

    fn exit<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Option<Exit>> {
        async move {
            let life = self.lives.get(which)?;
            let mut end = life.end.subscribe();
            let ended = *end.wait_for(Option::is_some).await.ok()?;
            match ended? {
                Ended::Exit(exit) => Some(exit),
                Ended::Lost => None,
            }
        }
        .boxed()
    }

    /// The CRI has one way to ask for an end, with the signal that the image names. A container that must die at once is killed.
    fn signal(&self, which: &Which, signal: i32) {
        let Some(life) = self.lives.get(which) else { return };
        let (client, lives) = (self.client.clone(), Arc::downgrade(&self.lives));
        let (uid, container, must_die) =
            (which.uid.clone(), which.container.clone(), signal == libc::SIGKILL);
        tasks::spawn(info_span!("end a container", uid, container), async move {
            let (grace, patience) = if must_die { (Duration::ZERO, KILL) } else { (GRACE, SAY) };
            let (mut end, mut is_told) = (life.end.subscribe(), false);
            loop {
                match client.stop_container(&life.id, grace, patience).await {
                    Ok(()) => {
                        if let Some(lives) = lives.upgrade() {
                            let _ = lives.look().await;
                        }
                        return;
                    }
                    // The runtime goes on waiting, or is asked again when its time is over.
                    Err(failure) if failure.is_unknown() && !must_die => return,
                    Err(failure) if !is_told => {
                        is_told = true;
                        tracing::warn!(%failure, must_die, "a container can't be asked to end");
                    }
                    Err(_) => {}
                }
                // A kill is decided once: it is said until it was heard. A runtime may be about to begin anew.
                let is_over = tokio::time::timeout(AGAIN, end.wait_for(Option::is_some)).await.is_ok();
                if !must_die || is_over || lives.strong_count() == 0 {
                    return;
                }
            }
        });
    }

    fn exec<'a>(
        &'a self,
        which: &'a Which,
        argv: Vec<String>,
        streams: Streams,
        limit: Option<Duration>,
    ) -> BoxFuture<'a, Result<Session, RunError>> {
        async move {
            let life = self.lives.get(which).ok_or(RunError::Gone)?;
            match limit {
                Some(limit) if streams == Streams::Outputs => {
                    Ok(exec_within(&self.client, &life.id, argv, limit))
                }
                _ => exec(&self.client, &life.id, argv, streams).await,
            }
        }
        .boxed()
    }

    fn attach<'a>(&'a self, which: &'a Which, wanted: (bool, bool)) -> BoxFuture<'a, Option<Attached>> {
        async move {
            let life = self.lives.get(which)?;
            attach(&self.client, &life.id, life.streams, wanted).await
        }
        .boxed()
    }

    /// The runtime knows by itself (`stdin_once`).
    fn close_input(&self, _: &Which) {}

    fn log(&self, which: &Which) -> watch::Receiver<LogProgress> {
        let (tell, progress) = watch::channel(LogProgress::default());
        let span = info_span!("follow a log", uid = which.uid, container = which.container);
        tasks::spawn(span, follow_log(self.lives.get(which), tell));
        progress
    }

    /// A log that can't be written is the runtime's to notice.
    fn trouble(&self) -> BoxFuture<'_, Trouble> {
        std::future::pending().boxed()
    }

    fn found(&self) -> BoxFuture<'_, Vec<Found>> {
        async move {
            let look = async {
                let mut is_told = false;
                loop {
                    match self.look_around().await {
                        Ok(found) => {
                            self.is_known.store(true, Ordering::Release);
                            return found;
                        }
                        Err(failure) if !is_told => {
                            is_told = true;
                            let runtime = self.client.endpoint().to_string();
                            tracing::warn!(runtime, %failure, "waiting for the containers' runtime");
                        }
                        Err(_) => {}
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            };
            match tokio::time::timeout(COMES_UP, look).await {
                Ok(found) => found,
                Err(_) => {
                    let runtime = self.client.endpoint().to_string();
                    tracing::warn!(
                        runtime,
                        "the containers' runtime doesn't answer: the agent begins without it"
                    );
                    self.catch_up();
                    Vec::new()
                }
            }
        }
        .boxed()
    }

    /// A pod as a whole is held to nothing here.
    fn update_resources<'a>(
        &'a self,
        _: &'a str,
        container: Option<&'a Which>,
        amounts: Amounts,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        async move {
            let Some(which) = container else { return Ok(()) };
            let life = self.lives.get(which).ok_or(RunError::Gone)?;
            self.client.update_container(&life.id, changed(amounts)).await.map_err(system)
        }
        .boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Vec<(Which, Timestamp, Usage)>> {
        async move {
            let running: HashMap<String, (Which, Timestamp)> = self
                .lives
                .list()
                .into_iter()
                .map(|(which, life)| (life.id.clone(), (which, life.begun.since)))
                .collect();
            if running.is_empty() {
                return Vec::new();
            }
            let Ok(all) = self.client.stats(self.labels.clone()).await else { return Vec::new() };
            let one = |stats: &ContainerStats| {
                let (which, since) = running.get(&stats.attributes.as_ref()?.id)?.clone();
                Some((which, since, usage(stats)))
            };
            all.iter().filter_map(one).collect()
        }
        .boxed()
    }

    /// What a pod uses is what its containers do.
    fn memory_of_pods(&self, _: Vec<String>) -> BoxFuture<'_, HashMap<String, Memory>> {
        std::future::ready(HashMap::new()).boxed()
    }

    fn lost(&self, _: &str) -> Lost {
        Lost {
            reason: Some("ContainerStatusUnknown"),
            message: "The container could not be located in its runtime: somebody else removed it",
        }
    }

    /// None of its pods stops with a lease: nothing of ours is beside them that could kill them then.
    fn bound(&self, uid: &str) -> Option<Option<membership::lease::Epoch>> {
        self.has(uid).then_some(None)
    }

    fn sandboxes(&self) -> Vec<String> {
        self.sandboxes.uids()
    }

    fn end<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            self.sandboxes.end(uid).await;
            self.lives.forget(uid);
        }
        .boxed()
    }

    fn end_all(&self) -> BoxFuture<'_, ()> {
        async move {
            let uids = self.sandboxes.uids();
            let ended = tokio::time::timeout(END_ALL, join_all(uids.iter().map(|uid| self.end(uid)))).await;
            if ended.is_err() {
                tracing::warn!("the containers' runtime doesn't end all pods: the next agent finds them");
            }
        }
        .boxed()
    }
}
