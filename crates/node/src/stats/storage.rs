//! What a pod takes of the host's disk, by looking through its folders from time to time: it costs too much to be asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements, Volume};
use tasks::SpawnIn;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{Span, info_span};

use super::disk::{Budget, FileSystem, Tree};
use crate::container::{is_in_memory, volume_path};
use crate::pod::{all_containers, is_over, subject, uid};
use crate::pods::{PodHost, PodTokens};

/// How often pods are looked at whose storage nothing holds: the kubelet's `volumeStatsAggPeriod`.
const SELDOM: Duration = Duration::from_secs(60);
/// How many pods are looked at at once: a large one doesn't hold the others up, and the disk has other things to do.
const AT_ONCE: usize = 3;
/// How long one pod's folders are looked at.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// How long a file system is waited for that may come from elsewhere, and a look that was asked to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a pod takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodStorage {
    /// When it was looked at.
    pub at: Timestamp,
    /// By containers: what it wrote into its root, and its logs.
    pub containers: BTreeMap<String, (Tree, Tree)>,
    /// Volumes that are folders of the pod's own, by name. What is in memory is none.
    pub volumes: BTreeMap<String, Tree>,
    /// Volumes of claims: the claim's name, and the file system that it lies on.
    pub claims: Claims,
    /// What else lies in its folder.
    pub rest: Tree,
}

type Claims = BTreeMap<String, (String, FileSystem)>;

impl PodStorage {
    /// What of the host's disk goes with the pod: roots, logs, and folders that it may write to.
    pub(crate) fn ephemeral(&self, pod: &Pod) -> Tree {
        let containers = self.containers.values().map(|(root, logs)| root.and(*logs));
        let volumes = written(pod).filter_map(|volume| self.volumes.get(&volume.name).copied());
        containers.chain(volumes).fold(self.rest, Tree::and)
    }

    /// Whether something holds what the pod takes of the disk.
    pub(crate) fn is_limited(&self, pod: &Pod) -> bool {
        let limits = |resources: Option<&ResourceRequirements>| {
            let limits = resources.and_then(|all| all.limits.as_ref());
            limits.is_some_and(|all| all.contains_key("ephemeral-storage"))
        };
        let is_limited =
            |volume: &Volume| volume.empty_dir.as_ref().is_some_and(|dir| dir.size_limit.is_some());
        all_containers(pod).any(|container| limits(container.resources.as_ref()))
            || limits(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()))
            || written(pod).any(|volume| self.volumes.contains_key(&volume.name) && is_limited(volume))
    }
}

/// The volumes that a pod writes to and takes with it. Which of them are on the disk, is what [`PodStorage::volumes`] says.
pub(crate) fn written(pod: &Pod) -> impl Iterator<Item = &Volume> {
    volumes(pod).filter(|volume| volume.empty_dir.is_some())
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// What pods take, as far as it is known, and at what of them somebody looks.
#[derive(Debug, Default)]
pub(crate) struct StorageBook {
    known: Mutex<HashMap<String, (Duration, Arc<PodStorage>)>>,
    looks: Arc<Mutex<HashSet<(String, Part)>>>,
}

/// What of a pod is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// Its own folders.
    Folders,
    /// The file systems of its claims.
    Claims,
}

/// A look at a part of a pod, until it is dropped. There are no two at once: one that hangs keeps its thread, and one is enough.
#[derive(Debug)]
struct Look {
    of: (String, Part),
    all: Arc<Mutex<HashSet<(String, Part)>>>,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.of);
    }
}

impl StorageBook {
    /// What a pod took when it was looked at last.
    pub(crate) fn of(&self, uid: &str) -> Option<Arc<PodStorage>> {
        self.known().get(uid).map(|(_, storage)| storage.clone())
    }

    fn is_due(&self, pod: &Pod, often: Duration, now: Duration) -> bool {
        self.known().get(uid(pod)).is_none_or(|(at, storage)| {
            let every = if storage.is_limited(pod) { often } else { SELDOM };
            now.saturating_sub(*at) >= every
        })
    }

    fn put(&self, pod: &Pod, storage: PodStorage, now: Duration) {
        self.known().insert(uid(pod).to_owned(), (now, Arc::new(storage)));
    }

    fn keep_only(&self, uids: &HashSet<&str>) {
        self.known().retain(|uid, _| uids.contains(uid.as_str()));
    }

    fn begin(&self, uid: &str, part: Part) -> Option<Arc<Look>> {
        let of = (uid.to_owned(), part);
        let is_first = self.looks.lock().unwrap_or_else(PoisonError::into_inner).insert(of.clone());
        is_first.then(|| Arc::new(Look { of, all: self.looks.clone() }))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Duration, Arc<PodStorage>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has work end that nobody waits for any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does work that blocks. After `limit` it is asked to end with what it has; if it doesn't even then, it hangs, and there is nothing.
async fn bounded<T: Send + 'static>(
    span: Span,
    limit: Duration,
    work: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
) -> Option<T> {
    let stop = Stop(Arc::default());
    let asked = stop.0.clone();
    let mut work = tasks::blocking(span, move || work(asked));
    if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
        return done.ok();
    }
    drop(stop);
    tokio::time::timeout(PATIENCE, work).await.ok()?.ok()
}

/// Where something of a pod lies.
enum Place {
    /// In its own folder.
    Own(PathBuf),
    /// Where its claim's volume does, by the claim's name.
    Claimed(String, PathBuf),
}

impl PodHost {
    /// The pods that have something of the host and aren't over, whether anything of them runs or not.
    pub(crate) fn resident_pods(&self) -> Vec<Arc<Pod>> {
        self.residents.list().into_iter().map(|one| one.pod).filter(|pod| !is_over(pod)).collect()
    }

    /// Begins to look at the pods that are due, at limited ones after `often`. Each is answered once it was looked at.
    pub(crate) fn begin_looks(
        self: &Arc<Self>,
        looks: &mut JoinSet<Option<Arc<Pod>>>,
        turns: &Turns,
        often: Duration,
    ) {
        let (pods, now) = (self.resident_pods(), self.clock.now().elapsed);
        self.storage.keep_only(&pods.iter().map(|pod| uid(pod)).collect());
        for pod in pods.into_iter().filter(|pod| self.storage.is_due(pod, often, now)) {
            let Some(look) = self.storage.begin(uid(&pod), Part::Folders) else { continue };
            let span = info_span!("look at storage", pod = subject(&pod));
            looks.spawn_in(span, self.clone().look_at(turns.clone(), look, pod));
        }
    }

    async fn look_at(self: Arc<Self>, turns: Turns, look: Arc<Look>, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        let _turn = turns.0.acquire().await.ok()?;
        let now = self.clock.now();
        let (host, of, held) = (self.clone(), pod.clone(), look.clone());
        let found = bounded(info_span!("look through folders"), LONGEST, move |stop| {
            let _held = held;
            host.look_through(&of, &mut Budget::new(stop))
        });
        let Some(mut storage) = found.await else {
            tracing::warn!("the disk doesn't answer: what the pod takes of it isn't known");
            return None;
        };
        storage.at = now.wall;
        storage.claims = self.ask_claims(&pod).await;
        self.storage.put(&pod, storage, now.elapsed);
        drop(look);
        Some(pod)
    }

    /// The file systems of a pod's claims; as they were, if they don't answer: one may hang with the server that it comes from.
    async fn ask_claims(self: &Arc<Self>, pod: &Arc<Pod>) -> Claims {
        let asked = async {
            let look = self.storage.begin(uid(pod), Part::Claims)?;
            let (host, of) = (self.clone(), pod.clone());
            bounded(info_span!("look at claims"), PATIENCE, move |_| {
                let _look = look;
                host.claims(&of)
            })
            .await
        };
        let known = || self.storage.of(uid(pod)).map(|storage| storage.claims.clone());
        asked.await.or_else(known).unwrap_or_default()
    }

    /// Looks through the folders of a pod. Blocks for as long as that takes.
    fn look_through(&self, pod: &Pod, budget: &mut Budget) -> PodStorage {
        let id = uid(pod);
        let mut storage = PodStorage::default();
        for container in all_containers(pod) {
            let root = Tree::of(&self.folders.written(id, &container.name), budget);
            let logs = Tree::of(&self.folders.logs(pod, &container.name), budget);
            storage.containers.insert(container.name.clone(), (root, logs));
        }
        for (volume, place) in self.places(pod) {
            if let Place::Own(path) = place {
                storage.volumes.insert(volume, Tree::of(&path, budget));
            }
        }
        let work = Tree::of(&self.folders.work(id), budget);
        storage.rest = work.and(Tree::of(&self.folders.tmp(id), budget));
        storage
    }

    /// Asks for the file systems that the claims of a pod lie on. Blocks, with a server far away maybe.
    fn claims(&self, pod: &Pod) -> Claims {
        let claims = self.places(pod).into_iter().filter_map(|(volume, place)| match place {
            Place::Claimed(claim, path) => Some((volume, (claim, FileSystem::of(&path).ok()?))),
            Place::Own(_) => None,
        });
        claims.collect()
    }

    /// The volumes of a pod that can be looked at, with where they lie.
    fn places(&self, pod: &Pod) -> Vec<(String, Place)> {
        let folder = self.folders.pod(uid(pod));
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let sources = self.sources(&state, pod, self.address, &no_tokens);
        let has_memory = self.has_memory(pod, &state);
        let place = |volume: &Volume| {
            // What a storage driver mounts may hang with the server that it comes from: nobody waits for it here.
            let is_elsewhere = volume.host_path.is_some()
                || volume.image.is_some()
                || volume.csi.is_some()
                || (has_memory && is_in_memory(volume));
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(source), _) => Some(source.claim_name.clone()),
                (None, Some(_)) => Some(objects::ephemeral_claim(
                    pod.metadata.name.as_deref().unwrap_or_default(),
                    &volume.name,
                )),
                (None, None) => None,
            };
            match (is_elsewhere, claim, volume_path(&folder, volume, sources)) {
                (false, None, Ok(path)) => Some((volume.name.clone(), Place::Own(path))),
                (false, Some(claim), Ok(path)) if !path.starts_with(&folder) => {
                    Some((volume.name.clone(), Place::Claimed(claim, path)))
                }
                _ => None,
            }
        };
        volumes(pod).filter_map(place).collect()
    }
}

/// The turns of those that look.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Turns(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value, volumes: Value) -> Pod {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers, "volumes": volumes}});
        serde_json::from_value(pod).unwrap()
    }

    fn tree(bytes: u64) -> Tree {
        Tree { bytes, inodes: 1, is_partial: false }
    }

    #[test]
    fn what_goes_with_the_pod_counts_and_nothing_else() {
        let memory = json!({"medium": "Memory", "sizeLimit": "1Ki"});
        let pod = pod(
            json!([{"name": "a"}]),
            json!([{"name": "dir", "emptyDir": {}}, {"name": "memory", "emptyDir": memory},
                {"name": "config", "configMap": {"name": "c"}}]),
        );
        let mut storage = PodStorage {
            containers: [("a".to_owned(), (tree(1), tree(10)))].into(),
            volumes: [("dir".to_owned(), tree(100)), ("config".into(), tree(1000))].into(),
            rest: tree(10_000),
            ..PodStorage::default()
        };
        assert_eq!(storage.ephemeral(&pod), Tree { bytes: 10_111, inodes: 4, is_partial: false });
        assert!(!storage.is_limited(&pod), "what is in memory takes no disk");
        // As processes of the host have it: a folder.
        storage.volumes.insert("memory".into(), Tree { is_partial: true, ..tree(100_000) });
        assert_eq!(storage.ephemeral(&pod), Tree { bytes: 110_111, inodes: 5, is_partial: true });
        assert!(storage.is_limited(&pod));
    }

    #[test]
    fn limited_pods_are_looked_at_more_often() {
        let limit = json!({"limits": {"ephemeral-storage": "1Gi"}});
        let book = StorageBook::default();
        for (pod, often) in [
            (pod(json!([{"name": "a"}]), json!([{"name": "v", "emptyDir": {}}])), false),
            (pod(json!([{"name": "a", "resources": limit}]), json!([])), true),
            (pod(json!([{"name": "a"}]), json!([{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}])), true),
        ] {
            book.keep_only(&HashSet::new());
            let ten = Duration::from_secs(10);
            assert!(book.is_due(&pod, ten, Duration::ZERO), "never looked at");
            let volumes = volumes(&pod).map(|volume| (volume.name.clone(), tree(0))).collect();
            book.put(&pod, PodStorage { volumes, ..PodStorage::default() }, Duration::ZERO);
            assert_eq!(book.is_due(&pod, ten, ten), often, "{pod:?}");
            assert!(book.is_due(&pod, ten, SELDOM));
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_ends_with_what_it_has_and_what_hangs_with_nothing() {
        let (short, book) = (Duration::from_millis(10), StorageBook::default());
        let slow = |stop: Arc<AtomicBool>| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            "a part"
        };
        assert_eq!(bounded(Span::none(), short, slow).await, Some("a part"));
        let look = book.begin("u", Part::Folders).unwrap();
        let (go, held) = (mpsc::channel::<()>(), look.clone());
        let hung = bounded(Span::none(), short, move |_| {
            let _held = held;
            let _ = go.1.recv();
        });
        assert_eq!(hung.await, None);
        drop(look);
        assert!(book.begin("u", Part::Folders).is_none(), "it isn't looked at twice at once");
        assert!(book.begin("u", Part::Claims).is_some() && book.begin("v", Part::Folders).is_some());
        drop(go.0);
        while book.begin("u", Part::Folders).is_none() {
            tokio::task::yield_now().await;
        }
    }
}
