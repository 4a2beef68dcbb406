//! What controllers read of volumes and of the claims to them.

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, PersistentVolumeSpec,
    PersistentVolumeStatus,
};
use machinery::Quantity;
use objects::Meta;

use super::Kept;

/// A PersistentVolume (core/v1).
pub(crate) type PersistentVolume = Kept<PersistentVolumeSpec, PersistentVolumeStatus>;
/// A PersistentVolumeClaim (core/v1).
pub(crate) type PersistentVolumeClaim = Kept<PersistentVolumeClaimSpec, PersistentVolumeClaimStatus>;

objects::thin_kind!(PersistentVolume, k8s_openapi::api::core::v1::PersistentVolume);
objects::thin_kind!(PersistentVolumeClaim, k8s_openapi::api::core::v1::PersistentVolumeClaim);

impl PersistentVolume {
    /// The namespace and name of the claim that it names.
    pub(crate) fn claim(&self) -> Option<(&str, &str)> {
        let reference = self.spec.as_ref()?.claim_ref.as_ref()?;
        Some((reference.namespace.as_deref()?, reference.name.as_deref()?))
    }

    /// Its class; empty without one.
    pub(crate) fn class(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default()
    }

    /// What is said of it last.
    pub(crate) fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    /// How much it holds.
    pub(crate) fn capacity(&self) -> Option<Quantity> {
        let capacity = self.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
        Quantity::parse(&capacity.0).ok()
    }

    /// Whether it is mounted as folders or as a device.
    pub(crate) fn mode(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
    }

    /// The class of its attributes; empty without one.
    pub(crate) fn attributes_class(&self) -> &str {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
    }
}

impl PersistentVolumeClaim {
    /// What names this very claim.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: self.metadata.namespace.as_deref().map(str::to_owned),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            resource_version: self.metadata.resource_version(),
            field_path: None,
        }
    }

    /// `NAMESPACE/NAME`.
    pub(crate) fn place(&self) -> String {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", self.metadata.name.as_deref().unwrap_or_default())
    }

    /// The volume that it names, if any.
    pub(crate) fn volume_name(&self) -> Option<&str> {
        self.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Its class, by the field or by the annotation that was there before it; empty without one.
    pub(crate) fn class(&self) -> &str {
        let annotated = self.annotation("volume.beta.kubernetes.io/storage-class");
        let named = self.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        annotated.or(named).unwrap_or_default()
    }

    /// One of its annotations.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// What is said of it last.
    pub(crate) fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    /// How much it asks for.
    pub(crate) fn requested(&self) -> Option<Quantity> {
        let requests = self.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        Quantity::parse(&requests.get("storage")?.0).ok()
    }

    /// Whether it is mounted as folders or as a device.
    pub(crate) fn mode(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
    }

    /// The class of its attributes; empty without one.
    pub(crate) fn attributes_class(&self) -> &str {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
    }
}
