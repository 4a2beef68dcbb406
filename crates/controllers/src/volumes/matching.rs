//! Which volume is as a claim asks: `FindMatchingVolume` of `component-helpers/storage/volume`.

use objects::{PersistentVolume, PersistentVolumeClaim};

use super::{OfClass, Reserved};
use crate::view::View;

/// The volume for a claim that names none: one that names the claim, else the smallest that is as it asks. `waits` says that its
/// class waits for the claim's pod: then only a volume that names the claim will do.
pub(super) fn find<'a>(
    view: &'a View,
    claim: &PersistentVolumeClaim,
    waits: bool,
) -> Option<&'a PersistentVolume> {
    let reserved =
        view.by::<Reserved>(&claim.place()).find(|volume| volume.is_for(claim) && volume.suits(claim));
    if reserved.is_some() || waits {
        return reserved.map(AsRef::as_ref);
    }
    view.by::<OfClass>(claim.class())
        .filter(|volume| volume.suits(claim))
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
    if !volume.has_modes(claim) {
        return Some("incompatible accessMode");
    }
    None
}
