//! Which volume is as a claim asks: `FindMatchingVolume` of `component-helpers/storage/volume`.

use super::{OfClass, Reserved};
use crate::kept::{PersistentVolume, PersistentVolumeClaim};
use crate::view::View;

/// The volume for a claim that names none: one that names the claim, else the smallest that is as it asks. `delayed` says that
/// nobody knows yet where the claim's pod will run: then only a volume that names the claim will do.
pub(super) fn find<'a>(
    view: &'a View,
    claim: &PersistentVolumeClaim,
    delayed: bool,
) -> Option<&'a PersistentVolume> {
    let reserved = view
        .by::<Reserved>(&claim.place())
        .find(|volume| is_usable(volume, claim) && is_for(volume, claim) && is_large_enough(volume, claim));
    if reserved.is_some() || delayed {
        return reserved.map(AsRef::as_ref);
    }
    view.by::<OfClass>(claim.class())
        .filter(|volume| {
            volume.phase() == "Available"
                && is_usable(volume, claim)
                && is_selected(volume, claim)
                && is_large_enough(volume, claim)
        })
        .min_by_key(|volume| volume.capacity())
        .map(AsRef::as_ref)
}

/// Why a volume that a claim names can't be its own; nothing if it can.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if volume.capacity() < claim.requested() {
        return Some("requested PV is too small");
    }
    if volume.class() != claim.class() {
        return Some("storageClassName does not match");
    }
    if volume.mode() != claim.mode() {
        return Some("incompatible volumeMode");
    }
    if !has_modes(volume, claim) {
        return Some("incompatible accessMode");
    }
    None
}

/// Whether a volume that names a claim names this very one.
pub(super) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.namespace.as_deref() == claim.metadata.namespace.as_deref()
            && reference.name == claim.metadata.name
            && reference
                .uid
                .as_deref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

fn is_usable(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.metadata.deletion_timestamp.is_none()
        && volume.mode() == claim.mode()
        && has_modes(volume, claim)
        && volume.attributes_class() == claim.attributes_class()
}

fn is_large_enough(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.capacity() >= claim.requested()
}

fn is_selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| objects::selects(selector, volume.metadata.labels.as_deref()))
}

/// Whether a volume can be mounted in every way that a claim asks for.
fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let has = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let wants = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wants.iter().all(|mode| has.contains(mode))
}
