//! What a host may say by the status of its pods and their claims: what it sees there, and nothing that others act by; and of
//! volumes, that their folder is gone.

use machinery::{Object, Status};
use objects::Named;
use serde_json::Value;

/// What of a pod's metadata a write of its status may not change here; upstream says so of labels, by which services find
/// their pods, and its agent writes none of the others.
const METADATA: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];
/// What of a pod's status names objects, which a host may then read.
const CLAIMS: [(&str, &str); 2] = [
    ("resourceClaimStatuses", "resource claim statues"),
    ("extendedResourceClaimStatus", "extended resource claim status"),
];
/// What of a claim's status is a host's to say.
const SEEN: [&str; 4] = ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"];

pub(super) fn check_pod(node: &str, named: &Named<'_>, new: &Object, old: &Object) -> Result<(), Status> {
    let refused = |what: &str| Err(named.forbidden(&format!("node {node:?} cannot update {what}")));
    for field in METADATA {
        if given(new.meta(field)) != given(old.meta(field)) {
            return refused(&format!("{field} through pod status"));
        }
    }
    for (field, what) in CLAIMS {
        let of = |pod: &Object| pod.pointer("/status")?.get(field).cloned().filter(|value| !is_empty(value));
        if of(new) != of(old) {
            return refused(what);
        }
    }
    Ok(())
}

pub(super) fn check_claim(node: &str, named: &Named<'_>, new: &Object, old: &Object) -> Result<(), Status> {
    let rest = |claim: &Object| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            claim.remove_meta(field);
        }
        if let Some(Value::Object(status)) = claim.0.get_mut("status") {
            status.retain(|field, _| !SEEN.contains(&field.as_str()));
        }
        claim.0.retain(|_, value| !is_empty(value));
        claim
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    let why = format!(
        "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
    );
    Err(named.forbidden(&why))
}

/// A host lets a volume go whose folder it has removed, and changes nothing else of it.
pub(super) fn check_volume(node: &str, named: &Named<'_>, new: &Object, old: &Object) -> Result<(), Status> {
    let rest = |volume: &Object| {
        let mut volume = volume.clone();
        for field in ["resourceVersion", "managedFields", "finalizers"] {
            volume.remove_meta(field);
        }
        volume
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err(named
        .forbidden(&format!("node {node:?} is not allowed to update fields other than metadata.finalizers")))
}

/// A field that says something.
fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !is_empty(value))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
