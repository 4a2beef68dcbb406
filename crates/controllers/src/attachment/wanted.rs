//! Which volumes have to be attached to a node: those of its pods' claims whose driver attaches.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::CSIPersistentVolumeSource;
use k8s_openapi::api::storage::v1::CSIDriver;
use objects::{Meta, Occurrence, PersistentVolume, PersistentVolumeClaim, Pod};

use super::{UsersOn, event};
use crate::index::Claiming;
use crate::pods::{self, claims};
use crate::view::View;

const FAILED: &str = "FailedAttachVolume";

/// A volume that has to be attached to a node.
pub(super) struct Wanted<'a> {
    pub volume: &'a PersistentVolume,
    source: &'a CSIPersistentVolumeSource,
    /// Those on the node who use it.
    pods: Vec<&'a Arc<Pod>>,
}

impl<'a> Wanted<'a> {
    /// All that have to be attached to a node, by the names of their attachments.
    pub fn on(view: &'a View, node: &str) -> BTreeMap<String, Wanted<'a>> {
        let mut all: BTreeMap<String, Wanted<'a>> = BTreeMap::new();
        for pod in view.by::<UsersOn>(node).filter(|pod| !pods::is_finished(pod)) {
            for claim in claims(pod) {
                let Some((volume, source)) = volume_of(view, pod, &claim) else { continue };
                let name = attachment_name(source, node);
                let wanted = all.entry(name).or_insert_with(|| Wanted { volume, source, pods: Vec::new() });
                if wanted.pods.last().is_none_or(|last| !Arc::ptr_eq(last, pod)) {
                    wanted.pods.push(pod);
                }
            }
        }
        all
    }

    /// The driver that attaches it.
    pub fn driver(&self) -> &'a str {
        &self.source.driver
    }

    pub fn unique_name(&self) -> String {
        unique(self.source)
    }

    /// Whether it may be attached to one node alone (`isMultiAttachForbidden` upstream).
    pub fn is_exclusive(&self) -> bool {
        let modes =
            self.volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        !modes.is_empty()
            && !modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
    }

    pub fn succeeded(&self) -> impl Iterator<Item = Occurrence> {
        let volume = self.volume.metadata.name();
        let told = move |pod: &&Arc<Pod>| {
            event(pod, false, "SuccessfulAttachVolume", "AttachVolume.Attach succeeded", volume, "")
        };
        self.pods.iter().map(told)
    }

    pub fn failed(&self, why: &str) -> impl Iterator<Item = Occurrence> {
        let (volume, why) = (self.volume.metadata.name(), format!(": {why}"));
        self.pods.iter().map(move |pod| event(pod, true, FAILED, "AttachVolume.Attach failed", volume, &why))
    }

    /// It is to be on one node alone and is on another (`reportMultiAttachError` upstream, which names pods of the same namespace only).
    pub fn is_elsewhere(&self, view: &'a View, other: &str) -> impl Iterator<Item = Occurrence> {
        let claim = self.volume.claim().map(|(namespace, name)| format!("{namespace}/{name}"));
        let users = claim.into_iter().flat_map(|claim| view.by::<Claiming>(&claim).collect::<Vec<_>>());
        let users: Vec<&str> =
            users.filter(|pod| pod.node() == Some(other)).map(|pod| pod.metadata.name()).collect();
        let why = if users.is_empty() {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        } else {
            let mut why = "Volume is already used by pod(s)".to_owned();
            for (at, user) in users.iter().enumerate() {
                let _ = write!(why, "{} {user}", if at == 0 { "" } else { "," });
            }
            why
        };
        let volume = self.volume.metadata.name();
        self.pods.iter().map(move |pod| event(pod, true, FAILED, "Multi-Attach error", volume, &why))
    }
}

/// The volume of a pod's claim, if its driver attaches.
fn volume_of<'a>(
    view: &'a View,
    pod: &Pod,
    claim: &str,
) -> Option<(&'a PersistentVolume, &'a CSIPersistentVolumeSource)> {
    let claim = view.table::<PersistentVolumeClaim>().get(pod.metadata.namespace(), claim)?;
    let name = claim.volume_name().filter(|_| claim.phase() == "Bound")?;
    let volume = view.table::<PersistentVolume>().get("", name)?;
    let source = volume.spec.as_ref()?.csi.as_ref().filter(|_| volume.is_for(claim))?;
    let driver = view.table::<CSIDriver>().get("", &source.driver);
    // A driver that says nothing of itself attaches.
    let attaches = driver.and_then(|driver| driver.spec.attach_required) != Some(false);
    attaches.then_some((&**volume, source))
}

/// The name of a volume in a Node's status; nothing if it is no CSI driver's (`pkg/volume/csi`, `GetVolumeName`).
pub(super) fn unique_name(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.csi.as_ref().map(unique)
}

fn unique(source: &CSIPersistentVolumeSource) -> String {
    format!("kubernetes.io/csi/{}^{}", source.driver, source.volume_handle)
}

/// The name of an attachment (`pkg/volume/csi`, `getAttachmentName`): it follows from what is attached where, so that it can be looked up.
pub(super) fn attachment_name(source: &CSIPersistentVolumeSource, node: &str) -> String {
    let of = format!("{}{}{node}", source.volume_handle, source.driver);
    let digest = ring::digest::digest(&ring::digest::SHA256, of.as_bytes());
    let mut name = "csi-".to_owned();
    for byte in digest.as_ref() {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_named_after_volume_driver_and_node() {
        let source = CSIPersistentVolumeSource {
            driver: "d".into(),
            volume_handle: "h".into(),
            ..CSIPersistentVolumeSource::default()
        };
        // `printf hdn | sha256sum`
        let expected = "csi-9072ed11cc1acb5fa433a877ff339b6311d013f33bddd1d0092711a8ace5b16d";
        assert_eq!(attachment_name(&source, "n"), expected);
        assert_eq!(unique(&source), "kubernetes.io/csi/d^h");
    }
}
