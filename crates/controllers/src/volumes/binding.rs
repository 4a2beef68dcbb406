//! The steps of a binding.

use objects::{BIND_COMPLETED, BOUND_BY_CONTROLLER, PersistentVolume, PersistentVolumeClaim};
use serde_json::{Map, Value, json};

use crate::plan::{Plan, merge_this};

/// What a claim's status says.
#[derive(Clone, Copy)]
pub(super) enum Status<'a> {
    /// It has no volume.
    Pending,
    /// It has this one.
    Bound(&'a PersistentVolume),
    /// It had one.
    Lost,
}

/// The next step of binding a volume to a claim; nothing to do if they are bound.
pub(super) fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Plan {
    let mut plan = Plan::default();
    // First the volume: of two claims that want it, one sees that it is taken.
    if let Some(write) = reserve(volume, claim) {
        plan.write(merge_this(volume, "", write));
        return plan;
    }
    set_phase(volume, "Bound", None, &mut plan);
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let mut annotations = Map::new();
    let mut patch = Map::new();
    if claim.volume_name() != Some(name) {
        patch.insert("spec".into(), json!({"volumeName": name}));
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    if claim.annotation(BIND_COMPLETED).is_none() {
        annotations.insert(BIND_COMPLETED.into(), "yes".into());
    }
    if annotations.is_empty() {
        set_status(claim, Status::Bound(volume), &mut plan);
    } else {
        patch.insert("metadata".into(), json!({"annotations": annotations}));
        plan.write(merge_this(claim, "", Value::Object(patch)));
    }
    plan
}

/// What makes a volume name a claim, unless it does.
fn reserve(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Value> {
    let named = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if named.is_some_and(|named| named.uid.is_some() && named.uid == claim.metadata.uid) {
        return None;
    }
    let mut patch = json!({"spec": {"claimRef": claim.reference()}});
    if named.is_none() {
        patch["metadata"] = json!({"annotations": {(BOUND_BY_CONTROLLER): "yes"}});
    }
    Some(patch)
}

/// Writes what is said of a claim, if it is something else.
pub(super) fn set_status(claim: &PersistentVolumeClaim, status: Status<'_>, plan: &mut Plan) {
    let (phase, volume) = match status {
        Status::Pending => ("Pending", None),
        Status::Bound(volume) => ("Bound", volume.spec.as_ref()),
        Status::Lost => ("Lost", None),
    };
    if claim.phase() == phase {
        return;
    }
    let modes = volume.and_then(|spec| spec.access_modes.as_ref());
    // Afterwards its size is the business of the program that makes the volume larger.
    let capacity = volume.and_then(|spec| spec.capacity.as_ref());
    let class = volume.and_then(|spec| spec.volume_attributes_class_name.as_ref());
    let mut status = json!({"phase": phase, "accessModes": modes, "capacity": capacity});
    if class.is_some() {
        status["currentVolumeAttributesClassName"] = json!(class);
    }
    plan.write(merge_this(claim, "status", json!({"status": status})));
}

/// Writes what is said of a volume, if it is something else.
pub(super) fn set_phase(
    volume: &PersistentVolume,
    phase: &str,
    why: Option<(&'static str, &str)>,
    plan: &mut Plan,
) {
    if volume.phase() == phase {
        return;
    }
    let (reason, message) = why.unzip();
    let status = json!({"phase": phase, "reason": reason, "message": message});
    plan.write(merge_this(volume, "status", json!({"status": status})));
}
