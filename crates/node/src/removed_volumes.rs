//! Folders of volumes that nobody claims any more: the host removes them, and then the volumes go.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::PersistentVolume;
use objects::{Kind, LOCAL_PATH, Occurrence, TypedRef, Write, waits_for};
use serde_json::json;
use store::{Event, KeyRange, KeyValue};
use tracing::info_span;

use crate::container::remove_folder;
use crate::pods::PodHost;

/// After this time the host tries again what it could not do: a full or broken disk is not mended sooner.
const AGAIN: Duration = Duration::from_secs(10);

/// Removes the folders of volumes that are to be deleted, until the store ends.
pub(crate) async fn remove_folders(host: Arc<PodHost>) {
    loop {
        match follow(&host).await {
            // The history was cut past what was seen: from the newest state again.
            store::Error::Compacted { .. } => {}
            error => return tracing::debug!(%error, "volumes are no longer followed"),
        }
    }
}

async fn follow(host: &PodHost) -> store::Error {
    let volumes = KeyRange::prefix(objects::kind_prefix(PersistentVolume::GROUP, PersistentVolume::PLURAL));
    let mut waiting = Waiting::default();
    // No snapshot is kept while folders are removed: it would keep every object that is replaced meanwhile.
    let from = {
        let state = host.store.snapshot();
        state.range(&volumes).for_each(|kv| waiting.put(host, kv));
        state.revision().next()
    };
    let mut watcher = match host.store.watch(volumes, from) {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    loop {
        waiting.remove_all(host).await;
        let again = async {
            match waiting.0.is_empty() {
                false => tokio::time::sleep(AGAIN).await,
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = watcher.changes() => match changes {
                Ok((events, _)) => events.iter().for_each(|event| match event {
                    Event::Put { current, .. } => waiting.put(host, current),
                    Event::Delete { previous, .. } => waiting.forget(&previous.key),
                }),
                Err(error) => return error,
            },
            () = again => {}
        }
    }
}

/// The volumes that wait for this host to remove their folders, each with what lets it go.
#[derive(Default)]
struct Waiting(BTreeMap<Bytes, (PersistentVolume, Write)>);

impl Waiting {
    fn put(&mut self, host: &PodHost, kv: &KeyValue) {
        let volume = objects::decode::<PersistentVolume>(kv).ok();
        let waits = volume.and_then(|volume| {
            let write = release(&host.name, host.folders.volumes(), &volume)?;
            Some((volume, write))
        });
        match waits {
            Some(waits) => _ = self.0.insert(kv.key.clone(), waits),
            None => self.forget(&kv.key),
        }
    }

    fn forget(&mut self, key: &Bytes) {
        self.0.remove(key);
    }

    /// Removes their folders; those that can't be stay.
    async fn remove_all(&mut self, host: &PodHost) {
        for (key, (volume, write)) in std::mem::take(&mut self.0) {
            if !remove(host, &volume, write.clone()).await {
                self.0.insert(key, (volume, write));
            }
        }
    }
}

/// What lets a volume go, if it waits for a folder of this host.
fn release(host: &str, volumes: &Path, volume: &PersistentVolume) -> Option<Write> {
    let path = &volume.spec.as_ref()?.local.as_ref()?.path;
    if Path::new(path) != volumes.join(volume.metadata.name.as_deref()?) || !waits_for(host, volume) {
        return None;
    }
    let patch = json!({"metadata": {"uid": volume.metadata.uid, "finalizers": null}});
    Some(Write::Merge { subject: TypedRef::of(volume), subresource: "", patch })
}

async fn remove(host: &PodHost, volume: &PersistentVolume, write: Write) -> bool {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    // A person who deletes a volume that is to be kept gives up the object, not what was written.
    if policy == Some("Delete") {
        let folder = host.folders.volumes().join(&name);
        let span = info_span!("remove a volume", volume = name);
        let removal = tasks::blocking(span, move || remove_folder(&folder));
        let removed = removal.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = removed {
            let why = format!("can't remove the folder of volume {name}: {error}");
            tracing::warn!(volume = name, %error, "can't remove the folder of a volume");
            host.recorder.record(Occurrence::of(volume, true, "VolumeFailedDelete", why));
            return false;
        }
    }
    match host.writer.write(&host.user(), write).await {
        Ok(_) => true,
        // It went meanwhile, and so did what had to be done.
        Err(status) if status.code == 404 => true,
        Err(status) => {
            tracing::debug!(volume = name, %status, finalizer = LOCAL_PATH, "a volume is not let go");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut volume = json!({
            "metadata": {"name": "pvc-1", "uid": "u", "deletionTimestamp": "2024-01-01T00:00:00Z",
                "finalizers": [LOCAL_PATH], "annotations": {"pv.kubernetes.io/provisioned-by": LOCAL_PATH}},
            "spec": {"local": {"path": "/data/volumes/pvc-1"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}},
        });
        change(&mut volume);
        serde_json::from_value(volume).unwrap()
    }

    #[test]
    fn a_host_removes_the_folders_that_are_its_own_and_waited_for() {
        let release = |volume| release("n1", Path::new("/data/volumes"), &volume);
        assert!(release(volume(|_| ())).is_some());
        let others: [fn(&mut Value); 6] = [
            |volume| volume["metadata"]["deletionTimestamp"] = Value::Null,
            |volume| volume["metadata"]["finalizers"] = json!([LOCAL_PATH, "kubernetes.io/pv-protection"]),
            |volume| volume["metadata"]["annotations"] = json!({}),
            |volume| volume["spec"]["local"]["path"] = json!("/etc"),
            |volume| volume["spec"]["local"]["path"] = json!("/data/volumes/../volumes/pvc-2"),
            |volume| {
                let values = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values";
                *volume.pointer_mut(values).unwrap() = json!(["n2"]);
            },
        ];
        for change in others {
            assert!(release(volume(change)).is_none());
        }
    }
}
