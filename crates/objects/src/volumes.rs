//! Volumes and the claims to them, as far as controllers and the scheduler read them, and whether one suits the other.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, PersistentVolumeSpec,
    PersistentVolumeStatus,
};
use machinery::Quantity;
use serde::Deserialize;

use crate::{Annotations, Meta, Metadata};

/// A claim's annotation: its volume was found, and only the end of one of them undoes it.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation of either side whose other side was chosen by a controller, not by a person: it may choose anew.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// A claim's annotation: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The name of the claim that is made with a pod for one of its volumes (KEP-1698).
pub fn ephemeral_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// The annotation with the class of a volume or claim that was there before the field.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A PersistentVolume (core/v1). Fields have the API's names and forms.
#[derive(Debug, Clone, Deserialize)]
pub struct PersistentVolume {
    /// Its metadata.
    #[serde(default, deserialize_with = "crate::metadata::<_, Read>")]
    pub metadata: Metadata,
    /// What it is.
    #[serde(default)]
    pub spec: Option<PersistentVolumeSpec>,
    /// How it stands.
    #[serde(default)]
    pub status: Option<PersistentVolumeStatus>,
}

/// A PersistentVolumeClaim (core/v1). Fields have the API's names and forms.
#[derive(Debug, Clone, Deserialize)]
pub struct PersistentVolumeClaim {
    /// Its metadata.
    #[serde(default, deserialize_with = "crate::metadata::<_, Read>")]
    pub metadata: Metadata,
    /// What it asks for.
    #[serde(default)]
    pub spec: Option<PersistentVolumeClaimSpec>,
    /// What it got.
    #[serde(default)]
    pub status: Option<PersistentVolumeClaimStatus>,
}

crate::thin_kind!(PersistentVolume, k8s_openapi::api::core::v1::PersistentVolume);
crate::thin_kind!(PersistentVolumeClaim, k8s_openapi::api::core::v1::PersistentVolumeClaim);

/// The annotations that say something about binding.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Read(BTreeMap<String, String>);

impl Annotations for Read {
    fn kept(mut self) -> Option<BTreeMap<String, String>> {
        self.0.retain(|name, _| name.contains("kubernetes.io/") && !name.starts_with("kubectl."));
        (!self.0.is_empty()).then_some(self.0)
    }
}

impl PersistentVolume {
    /// The namespace and name of the claim that it names.
    pub fn claim(&self) -> Option<(&str, &str)> {
        let reference = self.spec.as_ref()?.claim_ref.as_ref()?;
        Some((reference.namespace.as_deref()?, reference.name.as_deref()?))
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations()?.get(name).map(String::as_str)
    }

    /// Its class; empty without one.
    pub fn class(&self) -> &str {
        let named = self.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        self.annotation(BETA_CLASS).or(named).unwrap_or_default()
    }

    /// What is said of it last.
    pub fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    /// How much it holds.
    pub fn capacity(&self) -> Option<Quantity> {
        let capacity = self.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
        Quantity::parse(&capacity.0).ok()
    }

    /// Whether it is mounted as folders or as a device.
    pub fn mode(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
    }

    fn attributes_class(&self) -> &str {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
    }

    /// Whether it names this very claim.
    pub fn is_for(&self, claim: &PersistentVolumeClaim) -> bool {
        let reference = self.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let uid = reference.and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty());
        self.claim() == Some((claim.metadata.namespace(), claim.metadata.name()))
            && uid.is_none_or(|uid| Some(uid) == claim.metadata.uid())
    }

    /// Whether it can be mounted in every way that a claim asks for.
    pub fn has_modes(&self, claim: &PersistentVolumeClaim) -> bool {
        let has = self.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        let wants = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        wants.iter().all(|mode| has.contains(mode))
    }

    /// Whether it is as a claim asks, as upstream's `FindMatchingVolume` compares them: it names the claim, or it is free and of the
    /// claim's class.
    pub fn suits(&self, claim: &PersistentVolumeClaim) -> bool {
        let is_usable = self.metadata.deletion_timestamp.is_none()
            && self.mode() == claim.mode()
            && self.has_modes(claim)
            && self.attributes_class() == claim.attributes_class()
            && self.capacity() >= claim.requested();
        let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let is_free = || {
            self.claim().is_none()
                && self.phase() == "Available"
                && self.class() == claim.class()
                && selector.is_none_or(|selector| crate::selects(selector, self.metadata.labels()))
        };
        is_usable && (self.is_for(claim) || is_free())
    }
}

impl PersistentVolumeClaim {
    /// What names this very claim.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: Some(self.metadata.namespace().to_owned()),
            name: Some(self.metadata.name().to_owned()),
            uid: self.metadata.uid().map(str::to_owned),
            resource_version: self.metadata.resource_version(),
            field_path: None,
        }
    }

    /// `NAMESPACE/NAME`.
    pub fn place(&self) -> String {
        format!("{}/{}", self.metadata.namespace(), self.metadata.name())
    }

    /// The volume that it names, if any.
    pub fn volume_name(&self) -> Option<&str> {
        self.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Its class; empty without one.
    pub fn class(&self) -> &str {
        let named = self.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        self.annotation(BETA_CLASS).or(named).unwrap_or_default()
    }

    /// Whether it names no class at all, not even that it wants none: then it gets the default one.
    pub fn wants_default_class(&self) -> bool {
        let named = self.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
        named.is_none() && self.annotation(BETA_CLASS).is_none()
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations()?.get(name).map(String::as_str)
    }

    /// What is said of it last.
    pub fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    /// How much it asks for.
    pub fn requested(&self) -> Option<Quantity> {
        let requests = self.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        Quantity::parse(&requests.get("storage")?.0).ok()
    }

    /// Whether it is to be mounted as folders or as a device.
    pub fn mode(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
    }

    /// Whether it asks to be mounted in a way.
    pub fn has_mode(&self, mode: &str) -> bool {
        let modes = self.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        modes.iter().any(|own| own == mode)
    }

    fn attributes_class(&self) -> &str {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
    }
}
