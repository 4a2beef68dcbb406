//! The volumes that claims stand for: folders of this host, its own or such as an administrator named.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use objects::{Reader, is_local_path};

use super::ownership::give_to_group;
use super::security::volume_group;
use super::volumes::{host_path, io_error};
use super::{Missing, Sources};

/// Where a claim's volume lies.
pub(super) struct ClaimedFolder {
    pub path: PathBuf,
    pub kind: FolderKind,
}

/// How a volume came to its folder.
pub(super) enum FolderKind {
    /// It was made for the claim, in the host's folder for volumes.
    Made,
    /// An administrator said that it is there.
    Local,
    /// As a pod's own `hostPath`.
    HostPath(HostPathVolumeSource),
}

/// The folder of the claim that one of a pod's volumes stands for, if it stands for one.
///
/// # Errors
/// [`Missing`] if the claim has no volume, the name is that of another pod's claim, or the volume is of a kind that isn't mounted
/// here.
pub(super) fn claimed_folder(
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<Option<ClaimedFolder>, Missing> {
    let pod = sources.pod.metadata.name.as_deref().unwrap_or_default();
    let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => source.claim_name.clone(),
        (None, Some(_)) => format!("{pod}-{}", volume.name),
        (None, None) => return Ok(None),
    };
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let claim = Reader::<PersistentVolumeClaim>::get(sources.state, namespace, &name)
        .ok_or_else(|| Missing(format!("persistentvolumeclaim {name:?} not found")))?;
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if volume.ephemeral.is_some()
        && !owners.any(|owner| Some(&owner.uid) == sources.pod.metadata.uid.as_ref())
    {
        return Err(Missing(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod}")));
    }
    bound_folder(&claim, sources).map(Some)
}

fn bound_folder(claim: &PersistentVolumeClaim, sources: Sources<'_>) -> Result<ClaimedFolder, Missing> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (of(&claim.metadata.namespace), of(&claim.metadata.name));
    let (state, volumes) = (sources.state, sources.volumes);
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|_| phase == Some("Bound"));
    let volume =
        volume.ok_or_else(|| Missing(format!("claim {namespace}/{name} is not bound to a volume")))?;
    let volume = Reader::<PersistentVolume>::get(state, "", volume)
        .ok_or_else(|| Missing(format!("persistentvolume {volume:?} not found")))?;
    let called = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref();
    let its_claim = spec.and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.uid.as_ref());
    if its_claim != claim.metadata.uid.as_ref() {
        return Err(Missing(format!("volume {called:?} is bound to another claim than {namespace}/{name}")));
    }
    let local = spec.and_then(|spec| spec.local.as_ref());
    let host_path = spec.and_then(|spec| spec.host_path.clone());
    match (local, host_path) {
        (Some(local), _) if is_local_path(&volume.metadata) => {
            let path = PathBuf::from(&local.path);
            if path != volumes.join(called) {
                let why =
                    format!("volume {called:?} is {}, and not in this host's folder for volumes", local.path);
                return Err(Missing(why));
            }
            Ok(ClaimedFolder { path, kind: FolderKind::Made })
        }
        (Some(local), _) => Ok(ClaimedFolder { path: PathBuf::from(&local.path), kind: FolderKind::Local }),
        (None, Some(source)) => {
            Ok(ClaimedFolder { path: PathBuf::from(&source.path), kind: FolderKind::HostPath(source) })
        }
        (None, None) => Err(Missing(format!(
            "volume {called:?} is of a kind that isn't mounted here: a claim's volume must be local or hostPath"
        ))),
    }
}

impl ClaimedFolder {
    /// Makes what has to be made, and gives it to the pod's group.
    ///
    /// # Errors
    /// [`Missing`] if it can't be made, or isn't there.
    pub fn make(&self, pod: &Pod, is_writable: bool) -> Result<(), Missing> {
        match &self.kind {
            FolderKind::Made => make_folder(&self.path).map_err(io_error(&self.path))?,
            FolderKind::Local if self.path.is_dir() => {}
            FolderKind::Local => {
                return Err(Missing(format!("path {:?} does not exist", self.path.display().to_string())));
            }
            // It is the host's: no pod's group gets it.
            FolderKind::HostPath(source) => return host_path(source),
        }
        let Some(group) = volume_group(pod).filter(|_| is_writable) else { return Ok(()) };
        let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        give_to_group(&self.path, group, policy == Some("OnRootMismatch")).map_err(io_error(&self.path))
    }
}

/// Makes the folder of a volume, open to all: which users its pods have isn't known. Later it stays as its pods leave it.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}
