//! Claims that ask for more than they have: `pkg/controller/volume/expand`.

use machinery::Quantity;
use objects::{Occurrence, PersistentVolume, PersistentVolumeClaim, is_local_path};
use serde_json::json;

use crate::plan::{Action, Note, Plan, merge_this};

/// Makes the volume of a bound claim as large as the claim asks, or says who has to. A folder's size is whatever is in it: nothing
/// has to be done on its host.
pub(super) fn reconcile(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::default();
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let has = has.and_then(|has| Quantity::parse(&has.0).ok());
    let (Some(wants), Some(has)) = (claim.requested(), has) else { return plan };
    if claim.phase() != "Bound" || wants <= has {
        return plan;
    }
    if !is_local_path(&volume.metadata) {
        let message = "waiting for an external controller to expand this PVC";
        plan.told.push(Occurrence::of(claim, false, "ExternalExpanding", message.to_owned()));
        return plan;
    }
    let storage =
        claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let capacity = json!({"capacity": {"storage": storage}});
    if volume.capacity() < Some(wants) {
        plan.write(merge_this(volume, "", json!({"spec": capacity})));
    } else {
        let message = "Resize volume succeeded".to_owned();
        let told = Occurrence::of(claim, false, "VolumeResizeSuccessful", message);
        let write = merge_this(claim, "status", json!({"status": capacity}));
        plan.actions.push(Action::from(write).telling(Note::Event(told)));
    }
    plan
}
