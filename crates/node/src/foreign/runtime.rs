//! The runtime of others as the agent knows runtimes.

use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::Client;
use cri::messages::{ContainerStats, Texts, UInt64Value};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::info_span;

use super::NODE;
use super::lives::{Ended, Lives, follow_log};
use super::look::Known;
use super::offer::Offer;
use super::resources::changed;
use super::sandboxes::Sandboxes;
use super::session::{attach, exec, exec_within};
use crate::container::LogProgress;
use crate::container::cgroup::{Amounts, Cgroups, Memory};
use crate::oci::{Namespace, NamespaceKind};
use crate::pods::Folders;
use crate::runtime::{
    Attached, Begun, Exec, Exit, Found, Lost, Program, RunError, Runtime, Session, Shape, Streams, Tried,
    Trouble, Usage, Which,
};

/// How long it is waited before what failed is tried again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// How long a container may take to end that is only asked to, by its runtime's clock: the agent has its own.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the word to end may take to be said: then the runtime waits, and need not be waited for.
const SAY: Duration = Duration::from_secs(10);
/// How long a container that was killed may take to be dead.
pub(super) const KILL: Duration = Duration::from_secs(60);
/// How long a runtime may take to say what its containers use: a host that is short of something waits for that.
const COUNT: Duration = Duration::from_secs(5);
/// How long all sandboxes may take to end when the agent stops.
const END_ALL: Duration = Duration::from_secs(60);

/// A runtime of others, with this host's pods in it.
#[derive(Debug)]
pub(crate) struct ForeignRuntime {
    pub(super) client: Client,
    pub(super) labels: Texts,
    pub(super) lives: Arc<Lives>,
    pub(super) sandboxes: Sandboxes,
    pub(super) folders: Folders,
    /// In which those of its pods are.
    pub(super) cgroups: Option<Arc<Cgroups>>,
    /// What is known of the pods that it has.
    pub(super) known: watch::Sender<Known>,
    /// How it comes to have this host's network, if pods have networks.
    pub(super) offer: Option<Offer>,
}

pub(super) fn system(failure: impl Display) -> RunError {
    RunError::System(failure.to_string())
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
    /// A runtime in which the pods of this host bear the mark `node`, and which is offered this host's network if there is one. Without `cgroups`,
    /// which are for nothing else, no pod can have limits as a whole, nor a bound of its processes. Called within a tokio runtime.
    pub(crate) fn new(
        client: Client,
        node: String,
        folders: Folders,
        cgroups: Option<Cgroups>,
        offer: Option<Offer>,
    ) -> Self {
        let labels = Texts::from([(NODE.to_owned(), node)]);
        ForeignRuntime {
            lives: Lives::follow(client.clone(), labels.clone()),
            sandboxes: Sandboxes::new(client.clone(), labels.clone()),
            client,
            labels,
            folders,
            cgroups: cgroups.map(Arc::new),
            known: watch::Sender::new(Known::NotYet),
            offer,
        }
    }

    /// Whether a pod has its sandbox here, or is about to.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.sandboxes.has(uid)
    }
}

impl Runtime for ForeignRuntime {
    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> Tried<'a, Vec<Namespace>> {
        async move {
            let Shape::Foreign(mut wanted) = wanted else { return Err(RunError::of_another()) };
            self.check_known()?;
            let takes_cgroups = self.check_features(&wanted).await?;
            self.make_memory(uid, wanted.memory.clone()).await?;
            // What is made from here on goes with the sandbox.
            if takes_cgroups && let Some(parent) = self.pod_cgroup(uid, &wanted).await? {
                wanted.config.linux.get_or_insert_default().cgroup_parent = parent;
            }
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

    fn start<'a>(&'a self, which: &'a Which, program: Program, log: PathBuf) -> Tried<'a, Begun> {
        async move {
            match program {
                Program::Foreign(asked) => self.begin(which, *asked, log).await,
                Program::Process(_) | Program::Bundle(_) => Err(RunError::of_another()),
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

    fn exec<'a>(&'a self, which: &'a Which, Exec { argv, streams, limit }: Exec) -> Tried<'a, Session> {
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
        self.first_look().boxed()
    }

    fn found_late(&self) -> BoxFuture<'_, Vec<Found>> {
        self.late_look().boxed()
    }

    fn is_awaited(&self) -> bool {
        *self.known.borrow() == Known::Late
    }

    fn update_resources<'a>(&'a self, uid: &'a str, of: Option<&'a Which>, to: Amounts) -> Tried<'a, ()> {
        async move {
            let Some(which) = of else { return self.limit(uid, to).await };
            let life = self.lives.get(which).ok_or(RunError::Gone)?;
            self.client.update_container(&life.id, changed(to)).await.map_err(system)
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
            let client = self.client.within(COUNT);
            let Ok(all) = client.stats(self.labels.clone()).await else { return Vec::new() };
            let one = |stats: &ContainerStats| {
                let (which, since) = running.get(&stats.attributes.as_ref()?.id)?.clone();
                Some((which, since, usage(stats)))
            };
            all.iter().filter_map(one).collect()
        }
        .boxed()
    }

    /// What another pod uses is what its containers do.
    fn memory_of_pods(&self, uids: Vec<String>) -> BoxFuture<'_, HashMap<String, Memory>> {
        self.memory(uids).boxed()
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
            self.unmount(uid).await;
            self.remove_cgroup(uid).await;
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
            if let Some(cgroups) = &self.cgroups {
                cgroups.close();
            }
        }
        .boxed()
    }
}
