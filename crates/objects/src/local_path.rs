//! What controllers, agents and the API agree on about volumes that are folders of one host.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use store::State;

use crate::{Meta, Reader};

/// What makes a volume of a folder: a StorageClass names it, and the volumes that it made do ([`PROVISIONED_BY`]). It is also
/// the finalizer of such a volume, which the host's agent takes away once the folder is gone.
pub const LOCAL_PATH: &str = "holdfast.dev/local-path";

/// A Node's annotation: the folder of the host in which its volumes lie, each with the volume's name.
pub const VOLUMES: &str = "holdfast.dev/volumes";

/// The annotation of a volume that says what made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The label of a Node by which volumes name their host.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether a volume is a folder that was made for its claim.
pub fn is_local_path<M: Meta>(metadata: &M) -> bool {
    let made_by = metadata.annotations().and_then(|all| all.get(PROVISIONED_BY));
    made_by.map(String::as_str) == Some(LOCAL_PATH)
}

/// Whether a volume is to be deleted as soon as its folder is: nothing else holds it.
pub fn awaits_folder<M: Meta>(metadata: &M) -> bool {
    metadata.deletion_timestamp().is_some() && metadata.finalizers() == [LOCAL_PATH]
}

/// The host that a volume's folder is on, by its [`HOSTNAME`].
pub fn host_of(volume: &PersistentVolumeSpec) -> Option<&str> {
    let affinity = volume.node_affinity.as_ref()?.required.as_ref()?;
    let requirement = affinity.node_selector_terms.first()?.match_expressions.as_ref()?.first()?;
    (requirement.key == HOSTNAME).then(|| requirement.values.as_ref()?.first().map(String::as_str))?
}

/// Whether a volume is to be deleted as soon as a host has removed its folder.
pub fn waits_for(host: &str, volume: &PersistentVolume) -> bool {
    is_local_path(&volume.metadata)
        && awaits_folder(&volume.metadata)
        && volume.spec.as_ref().and_then(host_of) == Some(host)
}

/// Likewise of the volume of that name.
pub fn awaits_folder_of(host: &str, name: &str, state: &State) -> bool {
    Reader::<PersistentVolume>::get(state, "", name).is_some_and(|volume| waits_for(host, &volume))
}
