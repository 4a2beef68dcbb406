//! What to do about a volume: `syncVolume` upstream.

use objects::{
    BOUND_BY_CONTROLLER, Occurrence, PROVISIONED_BY, PersistentVolume, PersistentVolumeClaim, is_local_path,
};
use serde_json::{Value, json};

use super::binding::set_phase;
use crate::plan::{Note, Plan, delete, merge_this};
use crate::view::View;

pub(super) fn reconcile(view: &View, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::default();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(((namespace, name), reference)) = volume.claim().zip(reference) else {
        set_phase(volume, "Available", None, &mut plan);
        return plan;
    };
    // Somebody keeps it for a claim that isn't bound to it yet.
    let Some(uid) = reference.uid.as_deref().filter(|uid| !uid.is_empty()) else {
        set_phase(volume, "Available", None, &mut plan);
        return plan;
    };
    let claim = view.table::<PersistentVolumeClaim>().get(namespace, name);
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
        return given_up(volume);
    };
    match claim.volume_name() {
        // The claim's own controller goes on.
        None => {}
        Some(name) if Some(name) == volume.metadata.name.as_deref() => {
            set_phase(volume, "Bound", None, &mut plan);
        }
        // The claim was bound to another one at the same time.
        Some(_) if volume.annotation(PROVISIONED_BY).is_some() && policy(volume) == "Delete" => {
            return given_up(volume);
        }
        Some(_) => plan.write(merge_this(volume, "", freed(volume))),
    }
    plan
}

/// A volume whose claim is gone: first it is said, then its policy is carried out.
fn given_up(volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::default();
    if !matches!(volume.phase(), "Released" | "Failed") {
        set_phase(volume, "Released", None, &mut plan);
        return plan;
    }
    if volume.phase() == "Failed" || volume.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut fail = |reason: &'static str, why: String| {
        set_phase(volume, "Failed", Some((reason, &why)), &mut plan);
        let told = Note::Event(Occurrence::of(volume, true, reason, why));
        plan.actions.iter_mut().for_each(|action| action.done.push(told.clone()));
    };
    match policy(volume) {
        "Delete" if is_local_path(&volume.metadata) => plan.write(delete(volume)),
        // Who made it deletes it.
        "Delete" if volume.annotation(PROVISIONED_BY).is_some() => {}
        "Delete" => {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            fail(
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"
                ),
            );
        }
        "Recycle" => fail("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        _ => {}
    }
    plan
}

/// What takes a volume's claim away: all of it if it was chosen here; if a person keeps the volume for it, only which one it was.
fn freed(volume: &PersistentVolume) -> Value {
    if volume.annotation(BOUND_BY_CONTROLLER).is_some() {
        json!({"metadata": {"annotations": {(BOUND_BY_CONTROLLER): null}}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}})
    }
}

/// What becomes of it once its claim is gone.
fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}
