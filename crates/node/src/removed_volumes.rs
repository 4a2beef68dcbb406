//! Folders of volumes that nobody claims any more: the host removes them, and then the volumes go.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::PersistentVolume;
use objects::{Kind, LOCAL_PATH, Occurrence, Reader, TypedRef, Write, awaits_folder, host_of, is_local_path};
use serde_json::json;
use store::{KeyRange, State};
use tracing::info_span;

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
    let prefix = objects::kind_prefix(PersistentVolume::GROUP, PersistentVolume::PLURAL);
    let state = host.store.snapshot();
    let mut watcher = match host.store.watch(KeyRange::prefix(prefix), state.revision().next()) {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    let mut state = Some(state);
    loop {
        // A snapshot that is kept keeps every object that is replaced from now on.
        let all_done = match state.take() {
            Some(state) => remove_all(host, &state).await,
            None => remove_all(host, &host.store.snapshot()).await,
        };
        let again = async {
            match all_done {
                false => tokio::time::sleep(AGAIN).await,
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = watcher.changes() => match changes {
                Ok((_, newer)) => state = Some(newer),
                Err(error) => return error,
            },
            () = again => {}
        }
    }
}

/// Returns whether nothing is left to do.
async fn remove_all(host: &PodHost, state: &State) -> bool {
    let mut all_done = true;
    for volume in Reader::<PersistentVolume>::default().list(state) {
        if let Some(write) = release(&host.name, &host.volumes, &volume) {
            all_done &= remove(host, &volume, write).await;
        }
    }
    all_done
}

/// What lets a volume go, if it waits for a folder of this host.
fn release(host: &str, volumes: &Path, volume: &PersistentVolume) -> Option<Write> {
    let name = volume.metadata.name.as_deref()?;
    let spec = volume.spec.as_ref()?;
    let is_here = Path::new(&spec.local.as_ref()?.path) == volumes.join(name) && host_of(spec) == Some(host);
    if !is_here || !is_local_path(&volume.metadata) || !awaits_folder(&volume.metadata) {
        return None;
    }
    let subject = TypedRef {
        api_version: PersistentVolume::API_VERSION.into(),
        kind: PersistentVolume::KIND.into(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let patch = json!({"metadata": {"uid": volume.metadata.uid, "finalizers": null}});
    Some(Write::Merge { subject, subresource: "", patch })
}

async fn remove(host: &PodHost, volume: &PersistentVolume, write: Write) -> bool {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    // A person who deletes a volume that is to be kept gives up the object, not what was written.
    if policy == Some("Delete") {
        let folder = host.volumes.join(&name);
        let removal = tasks::blocking(info_span!("remove a volume", volume = name), move || {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
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
