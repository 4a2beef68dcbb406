//! Volumes that are mounted are kept as their objects say: published again for drivers that want that, with new tokens, and as large
//! as their claims were made.

use std::time::Duration;

use csi::Driver;
use csi::messages::Texts;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use objects::{Occurrence, Reader, TypedRef, Write};
use serde_json::{Value, json};

use super::attaching::context;
use super::book::Place;
use super::mounting::Mount;
use super::wish::bytes;
use super::{CsiVolumes, Wish, disk};
use crate::pod::uid;

/// After so long a driver that wants it publishes a volume again (the kubelet looks at a pod about once a minute).
const REPUBLISH: Duration = Duration::from_secs(60);
/// How long until a file system that could not grow is tried again.
const GROW_AGAIN: Duration = Duration::from_secs(122);
/// Conditions of a claim that end with its growth (`MarkFSResizeFinished`).
const OF_GROWTH: [&str; 3] = ["FileSystemResizePending", "Resizing", "NodeResizeError"];

impl CsiVolumes {
    /// A pod's containers run on from a former life of the agent: so its volumes are mounted.
    pub(crate) fn adopt(&self, pod: &Pod) {
        let now = self.clock.now().elapsed;
        for (place, known) in &mut self.book().uses {
            if place.uid == uid(pod) && known.is_recorded {
                (known.is_done, known.published) = (true, now);
            }
        }
    }

    /// Whether something is mounted for a pod.
    pub(crate) fn has_mounted(&self, uid: &str) -> bool {
        self.book().uses.iter().any(|(place, known)| place.uid == uid && known.is_done)
    }

    /// Does what is due for a pod's volumes that are mounted.
    pub(crate) async fn keep(&self, pod: &Pod, wishes: &[Wish]) {
        for wish in wishes {
            let place = Place { uid: uid(pod).to_owned(), name: wish.name.clone() };
            let now = self.clock.now().elapsed;
            let Some(known) = self.book().uses.get(&place).cloned().filter(|known| known.is_done) else {
                continue;
            };
            let publishes = wish.is_republished && known.published + REPUBLISH <= now;
            let grows = wish.grows.is_some() && known.not_before <= now;
            if !publishes && !grows {
                continue;
            }
            if let Err(why) = self.keep_one(pod, wish, place, publishes, grows).await {
                tracing::warn!(volume = wish.name, why, "a volume stays as it is");
            }
        }
    }

    async fn keep_one(
        &self,
        pod: &Pod,
        wish: &Wish,
        place: Place,
        publishes: bool,
        grows: bool,
    ) -> Result<(), String> {
        let turn = self.book().turn(&wish.id);
        // A driver that hangs is asked next time: nothing piles up behind it.
        let Ok(_turn) = turn.try_lock() else { return Ok(()) };
        // It may have been unmounted until now, or half so.
        if !self.book().uses.get(&place).is_some_and(|known| known.is_done) {
            return Ok(());
        }
        let driver = self.driver(&wish.id.driver)?;
        let can = driver.capabilities().await.map_err(|why| why.to_string())?;
        let publish_context = self.known_context(wish);
        let mount = Mount { wish, place, driver, can, publish_context };
        if publishes {
            let published = self.publish(pod, &mount).await;
            let now = self.clock.now().elapsed;
            if let Some(known) = self.book().uses.get_mut(&mount.place) {
                known.published = now;
            }
            published.map_err(|why| why.to_string())?;
        }
        match &wish.grows {
            Some((claim, size)) if grows && can.expands => self.grow(pod, &mount, claim, size).await,
            _ => Ok(()),
        }
    }

    fn known_context(&self, wish: &Wish) -> Texts {
        let Some(attachment) = &wish.attachment else { return Texts::new() };
        context(&self.store.snapshot(), &self.name, &wish.id.unique(), attachment).unwrap_or_default()
    }

    /// Has a file system grow, and says so in its claim.
    async fn grow(&self, pod: &Pod, mount: &Mount<'_>, claim: &str, size: &str) -> Result<(), String> {
        let wish = mount.wish;
        let grown = self.ask_to_grow(&mount.driver, mount, size).await;
        let (warning, reason, told) = match &grown {
            Ok(()) => (
                false,
                "FileSystemResizeSuccessful",
                format!("MountVolume.NodeExpandVolume succeeded for volume {:?} {}", wish.name, self.name),
            ),
            Err(why) => (
                true,
                "VolumeResizeFailed",
                format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {why}", wish.name),
            ),
        };
        self.recorder.record(Occurrence::of(pod, warning, reason, told));
        if let Err(why) = grown {
            let again = self.clock.now().elapsed + GROW_AGAIN;
            if let Some(known) = self.book().uses.get_mut(&mount.place) {
                known.not_before = again;
            }
            return Err(why);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = Reader::<PersistentVolumeClaim>::get(&self.store.snapshot(), namespace, claim);
        let Some(found) = found else { return Ok(()) };
        let write = Write::Merge {
            subject: TypedRef::of(&found),
            subresource: "status",
            patch: grown_status(&found, size),
        };
        self.writer.write(&self.user(), write).await.map(drop).map_err(|why| why.to_string())
    }

    async fn ask_to_grow(&self, driver: &Driver, mount: &Mount<'_>, size: &str) -> Result<(), String> {
        let bytes = bytes(size).ok_or_else(|| format!("{size:?} is no size"))?;
        let mut stage = self.as_asked(mount);
        stage.secrets = self.secrets("NodeExpandSecretRef", mount.wish.expand_secret.as_ref())?;
        let target = disk::target(&self.folders, &mount.place);
        let publish = csi::Publish { stage, target, read_only: mount.wish.read_only };
        let has = driver.expand(&publish, bytes, mount.can).await.map_err(|why| why.to_string())?;
        // A driver that doesn't say is believed.
        if has != 0 && has < bytes {
            return Err(format!("the driver made it {has} bytes large instead of {bytes}"));
        }
        Ok(())
    }
}

/// What a claim says once its volume has grown.
fn grown_status(claim: &PersistentVolumeClaim, size: &str) -> Value {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let others: Vec<_> =
        conditions.into_iter().filter(|condition| !OF_GROWTH.contains(&condition.type_.as_str())).collect();
    let conditions = if others.is_empty() { Value::Null } else { json!(others) };
    json!({"status": {"capacity": {"storage": size}, "conditions": conditions,
        "allocatedResourceStatuses": {"storage": null}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_has_grown_waits_for_nothing_more() {
        let claim = serde_json::from_value(json!({"metadata": {"name": "c"}, "status": {"conditions": [
            {"type": "FileSystemResizePending", "status": "True"}, {"type": "Other", "status": "True"}]}}));
        let status = grown_status(&claim.unwrap(), "2Gi");
        assert_eq!(status["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(status["status"]["conditions"].as_array().unwrap().len(), 1);
        assert!(status["status"]["allocatedResourceStatuses"]["storage"].is_null());
    }
}
