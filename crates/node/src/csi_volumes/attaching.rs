//! Volumes that must be attached to the host before they are mounted. A controller does that, and detaches them when their pods are
//! gone: the Node's `volumesInUse` keeps it from detaching what is mounted, or is about to be.
//!
//! 1. The use goes into the book, and so into what the Node is to say.
//! 2. The Node's writer has said so: it counts what it was told up to, and writes of former contents have ended by then.
//! 3. A state that is no older than that says both that the Node uses the volume and that it is attached. Since the controller that detaches takes the
//!    volume out of `volumesAttached` first, and then looks at `volumesInUse` again, it now sees the use.

use std::collections::BTreeSet;
use std::time::Duration;

use csi::messages::Texts;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use objects::Reader;
use store::State;
use tokio::sync::watch;

use super::mounting::to_end;
use super::{CsiVolumes, Wish};
use crate::container::Missing;
use crate::pod::{is_over, uid};

/// How long a pod waits for its volumes before an Event says so (`podAttachAndMountTimeout` of `pkg/kubelet/volumemanager`).
const PATIENCE: Duration = Duration::from_secs(2 * 60 + 3);

/// What a Node says of the volumes of its host.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeVolumes {
    /// Grows with each change.
    pub generation: u64,
    /// The attached volumes that are mounted, or about to be.
    pub in_use: BTreeSet<String>,
}

impl CsiVolumes {
    /// What the Node is to say, and whenever that changes.
    pub(crate) fn node(&self) -> watch::Receiver<NodeVolumes> {
        self.node.subscribe()
    }

    /// The Node says all that it was to say at this generation.
    pub(crate) fn reported(&self, generation: u64) {
        self.reported.send_if_modified(|before| {
            let is_newer = generation > *before;
            *before = generation.max(*before);
            is_newer
        });
    }

    /// Has the Node say which volumes are in use; from which generation on it does.
    pub(super) fn say_in_use(&self) -> u64 {
        self.node.send_if_modified(|node| {
            // The book is looked at within: of two that come at once, the last one to say something says the newest.
            let in_use = self.book().in_use();
            let is_new = in_use != node.in_use;
            *node = NodeVolumes { generation: node.generation + u64::from(is_new), in_use };
            is_new
        });
        self.node.borrow().generation
    }

    /// Waits until a volume is attached to the host; what its controller said when it was.
    ///
    /// # Errors
    /// [`Missing`] if that takes too long, or the pod is to end.
    pub(super) async fn attached(
        &self,
        pod: &Pod,
        wish: &Wish,
        attachment: &str,
        generation: u64,
    ) -> Result<Texts, Missing> {
        let wait = async {
            let _ = self.reported.subscribe().wait_for(|reported| *reported >= generation).await;
            let mut states = self.store.states();
            let unique = wish.id.unique();
            loop {
                let known = states.borrow_and_update().clone();
                if context(&known, &self.name, &unique, attachment).is_some()
                    && let Ok(fresh) = self.store.read().await
                    && let Some(context) = context(&fresh, &self.name, &unique, attachment)
                {
                    return context;
                }
                drop(known);
                if states.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            attached = tokio::time::timeout(PATIENCE, wait) => attached.map_err(|_| late(wish)),
            () = self.unwanted(pod) => Err(to_end()),
        }
    }

    /// Returns once a pod is to end, is over (it may fail while it waits), or is gone.
    pub(super) async fn unwanted(&self, pod: &Pod) {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = objects::key("", "pods", &of(&pod.metadata.namespace), &of(&pod.metadata.name));
        let mut states = self.store.states();
        let mut seen = None;
        loop {
            {
                let state = states.borrow_and_update();
                let found = state.get(key.as_bytes());
                let revision = found.map(|kv| kv.mod_revision);
                if seen != Some(revision) {
                    seen = Some(revision);
                    let found = found.and_then(|kv| objects::decode::<Pod>(kv).ok());
                    let is_to_end = |is: Pod| {
                        uid(&is) != uid(pod) || is.metadata.deletion_timestamp.is_some() || is_over(&is)
                    };
                    if found.is_none_or(is_to_end) {
                        return;
                    }
                }
            }
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What the controller of a volume said when it attached it, if a Node says that it uses the volume and that it is attached.
pub(super) fn context(state: &State, node: &str, unique: &str, attachment: &str) -> Option<Texts> {
    let status = Reader::<Node>::get(state, "", node)?.status?;
    let is_used = status.volumes_in_use.iter().flatten().any(|used| used == unique);
    let is_attached = status.volumes_attached.iter().flatten().any(|attached| attached.name == unique);
    if !is_used || !is_attached {
        return None;
    }
    let attachment = Reader::<VolumeAttachment>::get(state, "", attachment)?;
    let is_going = attachment.metadata.deletion_timestamp.is_some();
    let status = attachment.status.filter(|status| status.attached && !is_going)?;
    Some(status.attachment_metadata.unwrap_or_default())
}

fn late(wish: &Wish) -> Missing {
    let volume = &wish.volume;
    Missing(format!(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[{volume}], failed to process \
         volumes=[]: context deadline exceeded"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::{Memory, Store, Txn};

    use super::*;

    #[tokio::test]
    async fn a_volume_is_there_when_node_and_attachment_say_so() {
        let unique = "kubernetes.io/csi/d^h";
        let node = |status: Value| json!({"metadata": {"name": "n1"}, "status": status});
        let both = json!({"volumesInUse": [unique], "volumesAttached": [{"name": unique, "devicePath": ""}]});
        let attached = |status: Value, deleted: Value| {
            json!({"metadata": {"name": "csi-1", "deletionTimestamp": deleted},
                "spec": {"attacher": "d", "nodeName": "n1", "source": {}}, "status": status})
        };
        let yes = || json!({"attached": true, "attachmentMetadata": {"lun": "3"}});
        let found = async |node: Value, attachment: Value| {
            let store = Memory::default();
            store.txn(Txn::put(objects::key("", "nodes", "", "n1"), node.to_string())).await.unwrap();
            let key = objects::key("storage.k8s.io", "volumeattachments", "", "csi-1");
            store.txn(Txn::put(key, attachment.to_string())).await.unwrap();
            context(&store.snapshot(), "n1", unique, "csi-1")
        };
        let there = found(node(both.clone()), attached(yes(), Value::Null)).await;
        assert_eq!(there.unwrap()["lun"], "3");
        for missing in ["volumesInUse", "volumesAttached"] {
            let mut status = both.clone();
            status.as_object_mut().unwrap().remove(missing);
            assert_eq!(found(node(status), attached(yes(), Value::Null)).await, None, "{missing}");
        }
        assert_eq!(found(node(both.clone()), attached(json!({"attached": false}), Value::Null)).await, None);
        let going = attached(yes(), json!("2026-01-01T00:00:00Z"));
        assert_eq!(found(node(both), going).await, None, "it is being detached");
    }
}
