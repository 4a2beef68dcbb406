//! What a pod takes of the host's disk, by looking through its folders from time to time: it costs too much to be asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use objects::Reader;
use tracing::info_span;

use super::disk::{FileSystem, Tree};
use crate::clock::Now;
use crate::container::{is_in_memory, volume_path};
use crate::pod::{all_containers, subject, uid};
use crate::pods::{Live, PodHost, PodTokens};

/// How often pods are looked at whose storage nothing holds: the kubelet's `volumeStatsAggPeriod`.
const SELDOM: Duration = Duration::from_secs(60);

/// What a pod takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodStorage {
    /// When it was looked at.
    pub at: Timestamp,
    /// By containers: what it wrote into its root, and its logs.
    pub containers: BTreeMap<String, (Tree, Tree)>,
    /// Volumes that are folders of the pod's own, by name.
    pub volumes: BTreeMap<String, Tree>,
    /// Volumes of claims: the claim's name, and the file system that it lies on.
    pub claims: BTreeMap<String, (String, FileSystem)>,
    /// What else lies in its folder.
    pub rest: Tree,
}

impl PodStorage {
    /// What of the host's disk goes with the pod: roots, logs, and folders that it may write to.
    pub(crate) fn ephemeral(&self, pod: &Pod) -> Tree {
        let containers = self.containers.values().map(|(root, logs)| root.and(*logs));
        let volumes = written(pod).filter_map(|volume| self.volumes.get(&volume.name).copied());
        containers.chain(volumes).fold(self.rest, Tree::and)
    }
}

/// The volumes on the disk that a pod writes to and takes with it.
pub(crate) fn written(pod: &Pod) -> impl Iterator<Item = &Volume> {
    volumes(pod).filter(|volume| volume.empty_dir.is_some() && !is_in_memory(volume))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Whether something holds what a pod takes.
fn is_limited(pod: &Pod) -> bool {
    let limits = |resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        resources.and_then(|all| all.limits.as_ref()).is_some_and(|all| all.contains_key("ephemeral-storage"))
    };
    all_containers(pod).any(|container| limits(container.resources.as_ref()))
        || limits(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()))
        || written(pod).any(|volume| volume.empty_dir.as_ref().is_some_and(|dir| dir.size_limit.is_some()))
}

/// What pods take, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct StorageBook(Mutex<HashMap<String, (Duration, Arc<PodStorage>)>>);

impl StorageBook {
    /// What a pod took when it was looked at last.
    pub(crate) fn of(&self, uid: &str) -> Option<Arc<PodStorage>> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(uid).map(|(_, storage)| storage.clone())
    }

    fn is_due(&self, pod: &Pod, often: Duration, now: Duration) -> bool {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let every = if is_limited(pod) { often } else { SELDOM };
        book.get(uid(pod)).is_none_or(|(at, _)| now.saturating_sub(*at) >= every)
    }

    fn put(&self, pod: &Pod, storage: PodStorage, now: Duration) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.insert(uid(pod).to_owned(), (now, Arc::new(storage)));
    }

    fn keep_only(&self, uids: &HashSet<&str>) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

impl PodHost {
    /// The pods of which something runs.
    pub(crate) fn live_pods(&self) -> Vec<Arc<Pod>> {
        let (state, mut seen) = (self.store.snapshot(), HashSet::new());
        let running = self.running.list();
        let fresh = running.iter().filter(|live| seen.insert(live.which.uid.clone()));
        let pod = |live: &Arc<Live>| {
            let pod = Reader::<Pod>::get(&state, &live.namespace, &live.pod)?;
            // Another may bear the name by now.
            (uid(&pod) == live.which.uid).then(|| Arc::new(pod))
        };
        fresh.filter_map(pod).collect()
    }

    /// Looks at what is due, at limited pods after `often`; answers the pods that were looked at.
    pub(crate) async fn measure_storage(self: &Arc<Self>, often: Duration) -> Vec<Arc<Pod>> {
        let pods = self.live_pods();
        self.storage.keep_only(&pods.iter().map(|pod| uid(pod)).collect());
        let now = self.clock.now();
        let mut looked_at = Vec::new();
        for pod in pods.into_iter().filter(|pod| self.storage.is_due(pod, often, now.elapsed)) {
            let (host, of) = (self.clone(), pod.clone());
            let span = info_span!("look at storage", pod = subject(&pod));
            if let Ok(storage) = tasks::blocking(span, move || host.look_at(&of)).await {
                self.storage.put(&pod, storage, now.elapsed);
                looked_at.push(pod);
            }
        }
        looked_at
    }

    /// Looks through the folders of a pod. Blocks for as long as that takes.
    fn look_at(&self, pod: &Pod) -> PodStorage {
        let (id, Now { wall, .. }) = (uid(pod), self.clock.now());
        let folder = self.folders.pod(id);
        let mut storage = PodStorage { at: wall, ..PodStorage::default() };
        for container in all_containers(pod) {
            let root = Tree::of(&self.folders.written(id, &container.name));
            let logs = Tree::of(&self.folders.logs(pod, &container.name));
            storage.containers.insert(container.name.clone(), (root, logs));
        }
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let sources = self.sources(&state, pod, self.address, &no_tokens);
        for volume in volumes(pod) {
            // What a storage driver mounts may hang with the server that it comes from: nobody waits for it here.
            let is_elsewhere = volume.host_path.is_some()
                || volume.image.is_some()
                || volume.csi.is_some()
                || is_in_memory(volume);
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(source), _) => Some(source.claim_name.clone()),
                (None, Some(_)) => Some(objects::ephemeral_claim(
                    pod.metadata.name.as_deref().unwrap_or_default(),
                    &volume.name,
                )),
                (None, None) => None,
            };
            match (is_elsewhere, claim, volume_path(&folder, volume, sources)) {
                (false, None, Ok(path)) => _ = storage.volumes.insert(volume.name.clone(), Tree::of(&path)),
                (false, Some(claim), Ok(path)) if !path.starts_with(&folder) => {
                    if let Ok(about) = FileSystem::of(&path) {
                        storage.claims.insert(volume.name.clone(), (claim, about));
                    }
                }
                _ => {}
            }
        }
        storage.rest = Tree::of(&self.folders.work(id)).and(Tree::of(&self.folders.tmp(id)));
        storage
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value, volumes: Value) -> Pod {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers, "volumes": volumes}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_goes_with_the_pod_counts_and_nothing_else() {
        let pod = pod(
            json!([{"name": "a"}]),
            json!([{"name": "dir", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "config", "configMap": {"name": "c"}}]),
        );
        let tree = |bytes| Tree { bytes, inodes: 1 };
        let storage = PodStorage {
            containers: [("a".to_owned(), (tree(1), tree(10)))].into(),
            volumes: [("dir".to_owned(), tree(100)), ("config".into(), tree(1000))].into(),
            rest: tree(10_000),
            ..PodStorage::default()
        };
        assert_eq!(storage.ephemeral(&pod), Tree { bytes: 10_111, inodes: 4 });
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
            book.put(&pod, PodStorage::default(), Duration::ZERO);
            assert_eq!(book.is_due(&pod, ten, ten), often, "{pod:?}");
            assert!(book.is_due(&pod, ten, SELDOM));
        }
    }
}
