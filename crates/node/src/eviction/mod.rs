//! Pods go when the host runs short of memory, disk or processes, and when they take more of its disk than they may: what to do is
//! decided without I/O; the drivers here look, and have it done.

mod decision;
mod messages;
mod ranking;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info_span;

pub(crate) use decision::Pressures;
pub(crate) use ranking::{is_critical, priority};
pub use signals::{Bound, Eviction, Signal, Threshold};

use self::decision::Decider;
use self::messages::{beyond_limit, short, unseen};
use self::ranking::{Consumption, requested, turn};
use self::signals::{Left, Observed};
use crate::images::Images;
use crate::pod::{Failure, spec_grace, subject, uid};
use crate::pods::{PodHost, Report};
use crate::runtime::{Usage, Which};
use crate::stats::disk::{FileSystem, Tree};
use crate::stats::machine::Machine;
use crate::stats::storage::Turns;

/// How long a pod has to end that goes at once (`immediateEvictionGracePeriodSeconds`).
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long the next one waits for the last to be gone (`podCleanupTimeout`).
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at (`podCleanupPollFreq`).
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a pod that is evicted fails.
pub(crate) fn evicted(message: String, is_disruption: bool) -> Failure {
    Failure { reason: "Evicted", message, is_disruption }
}

/// Looks at what pods take of the disk, and evicts those that take more than they may, until it is dropped.
pub(crate) async fn hold_storage(
    host: Arc<PodHost>,
    reports: mpsc::UnboundedSender<Report>,
    every: Duration,
) {
    let (turns, mut looks) = (Turns::default(), JoinSet::new());
    loop {
        host.begin_looks(&mut looks, &turns, every);
        let again = tokio::time::sleep(every);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                Some(looked) = looks.join_next() => {
                    if let Ok(Some(pod)) = looked {
                        judge(&host, &reports, &pod);
                    }
                }
            }
        }
    }
}

/// Evicts a pod that was looked at, if it takes more of the disk than it may.
fn judge(host: &PodHost, reports: &mpsc::UnboundedSender<Report>, pod: &Pod) {
    let stays = host.residents.get(uid(pod)).is_some_and(|resident| !resident.goes);
    let why = host.storage.of(uid(pod)).and_then(|storage| beyond_limit(pod, &storage));
    if let Some(message) = why.filter(|_| stays && !is_critical(pod)) {
        tracing::info!(pod = subject(pod), message, "a pod is evicted");
        let _ = reports.send(Report::Evicted(uid(pod).to_owned(), evicted(message, false), AT_ONCE));
    }
}

/// Looks at what is left of the host, tells the pressures, and evicts one pod after the other while something is short, until it
/// is dropped.
pub(crate) async fn hold_host(
    host: Arc<PodHost>,
    settings: Eviction,
    pressures: watch::Sender<Pressures>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut decider = Decider::new(settings.clone());
    loop {
        let verdict = decider.look(&observe(&host).await, host.clock.now().elapsed);
        pressures.send_if_modified(|told| std::mem::replace(told, verdict.pressures) != verdict.pressures);
        if let Some(threshold) = verdict.short
            && let Some(gone) = relieve(&host, &threshold, &settings, &reports).await
        {
            until_gone(&host, &gone).await;
            continue;
        }
        tokio::time::sleep(settings.every).await;
    }
}

/// What is left of everything.
async fn observe(host: &Arc<PodHost>) -> Observed {
    let asked = host.clone();
    let look = move || {
        let machine = Machine::read();
        let disk = FileSystem::of(&asked.folders.pods()).ok();
        let images = asked.containers.as_ref().ok().and_then(|all| FileSystem::of(&all.folder()).ok());
        let of = |disk: FileSystem| Left { whole: disk.capacity, available: disk.available };
        let inodes = |disk: FileSystem| Left { whole: disk.inodes, available: disk.inodes_free };
        // Some file systems make inodes as they are needed, and say that they have none.
        let counted = |disk: &FileSystem| disk.inodes > 0;
        let processes = Left {
            whole: machine.most_processes,
            available: machine.most_processes.saturating_sub(machine.usage.processes),
        };
        let memory =
            Left { whole: machine.memory, available: machine.memory.saturating_sub(machine.usage.memory) };
        [
            (Signal::Memory, (memory.whole > 0).then_some(memory)),
            (Signal::Nodefs, disk.map(of)),
            (Signal::NodefsInodes, disk.filter(counted).map(inodes)),
            (Signal::Imagefs, images.map(of)),
            (Signal::ImagefsInodes, images.filter(counted).map(inodes)),
            (Signal::Pid, (processes.whole > 0).then_some(processes)),
        ]
        .into_iter()
        .filter_map(|(signal, left)| Some((signal, left?)))
        .collect()
    };
    tasks::blocking(info_span!("what is left of the host"), look).await.unwrap_or_default()
}

/// Frees what nobody uses, and if that isn't enough has the pod end whose turn it is; that one's uid is answered.
async fn relieve(
    host: &Arc<PodHost>,
    threshold: &Threshold,
    settings: &Eviction,
    reports: &mpsc::UnboundedSender<Report>,
) -> Option<String> {
    tracing::warn!(signal = threshold.signal.name(), "the host is running short");
    if threshold.signal.is_disk() {
        for images in host.containers.iter().chain(&host.foreign_images).cloned() {
            free_images(host, images).await;
        }
    }
    let observed = observe(host).await;
    if Decider::is_over(threshold, &observed) {
        return None;
    }
    let used = host.runtime.usage().await;
    // Those that have ended are among them as long as they have something here, and those that are deleted and take their time. One
    // that was evicted has had its turn, however long it takes.
    let residents = host.residents.list().into_iter().filter(|one| !one.goes && !is_critical(&one.pod));
    let pods: Vec<Arc<Pod>> = residents.map(|resident| resident.pod).collect();
    let memory = host.runtime.memory_of_pods(pods.iter().map(|pod| uid(pod).to_owned()).collect()).await;
    let mut pods: Vec<(Arc<Pod>, Consumption)> = pods
        .into_iter()
        .map(|pod| {
            let own = used.iter().filter(|(which, ..)| which.uid == uid(&pod)).map(|(.., usage)| *usage);
            let usage = Usage::of_pod(own, memory.get(uid(&pod)).copied());
            let tree = host.storage.of(uid(&pod)).map(|storage| storage.ephemeral(&pod));
            let consumed = consumption(&pod, usage, tree.unwrap_or_default());
            (pod, consumed)
        })
        .collect();
    pods.sort_by_key(|(_, consumed)| turn(threshold.signal, consumed));
    let (pod, consumed) = pods.into_iter().next()?;
    let containers =
        taken(host, threshold.signal, &pod, &used.iter().map(|(w, _, u)| (w, u)).collect::<Vec<_>>());
    let mut message = short(threshold, observed.get(&threshold.signal).copied(), &pod, &containers);
    if threshold.signal.is_disk() && consumed.is_unseen {
        message += &unseen();
    }
    let grace = match threshold.grace {
        Some(_) => settings.longest_grace.min(spec_grace(&pod)),
        None => AT_ONCE,
    };
    tracing::warn!(pod = subject(&pod), message, "a pod is evicted");
    reports.send(Report::Evicted(uid(&pod).to_owned(), evicted(message, true), grace)).ok()?;
    Some(uid(&pod).to_owned())
}

async fn free_images(host: &PodHost, images: Arc<dyn Images>) {
    let now = host.clock.now().elapsed;
    let freed = tasks::blocking(info_span!("remove unused images"), move || images.clear(now)).await;
    if let Ok(Err(why)) = freed {
        tracing::warn!(%why, "images that nobody uses can't be removed");
    }
}

fn consumption(pod: &Pod, usage: Usage, tree: Tree) -> Consumption {
    Consumption {
        priority: priority(pod),
        memory: (usage.memory, requested(pod, "memory")),
        disk: (tree.bytes, requested(pod, "ephemeral-storage")),
        inodes: tree.inodes,
        processes: usage.processes,
        is_unseen: tree.is_partial,
    }
}

/// What each container of a pod takes of what is short, as far as that counts by containers.
fn taken(host: &PodHost, signal: Signal, pod: &Pod, used: &[(&Which, &Usage)]) -> Vec<(String, u64)> {
    match signal {
        Signal::Memory => {
            let own = used.iter().filter(|(which, _)| which.uid == uid(pod));
            own.map(|(which, usage)| (which.container.clone(), usage.memory)).collect()
        }
        Signal::Nodefs | Signal::Imagefs => {
            let storage = host.storage.of(uid(pod));
            let containers = storage.iter().flat_map(|storage| &storage.containers);
            containers.map(|(name, (root, logs))| (name.clone(), root.and(*logs).bytes)).collect()
        }
        Signal::NodefsInodes | Signal::ImagefsInodes | Signal::Pid => Vec::new(),
    }
}

/// Waits until nothing of a pod runs any more and all that it had of the host is given back, but not for ever: only then it shows whether
/// that was enough.
async fn until_gone(host: &PodHost, gone: &str) {
    let wait = async {
        while host.residents.get(gone).is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, wait).await;
}
