//! The claims of a StatefulSet's pods: one of each template for each ordinal, which outlives its pod; and who owns it, so that
//! it goes with the set or with what a smaller set gives up (KEP-1847).

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Kind, Meta, Metadata, Occurrence, Pod, Reader, Write};
use serde_json::{Value, json};

use super::Set;
use super::identity::pod_name;
use crate::plan::{Action, Note, Plan, merge_this};
use crate::pod_writes::owner_reference;

/// What keeps a pod from being made.
pub(super) enum Hindrance {
    /// Claims that are being made now, or that will be gone soon: their change is waited for.
    Waits,
    /// A claim of that name is being deleted.
    IsDeleted(String),
}

/// Which owners claims have, by the policy: the set if they go with it; their pod once a smaller set has none of its ordinal.
#[derive(Clone, Copy)]
struct Policy {
    go_with_set: bool,
    go_with_pod: bool,
}

impl Policy {
    fn of(set: &Set<'_>) -> Self {
        let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
        Policy {
            go_with_set: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            go_with_pod: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }
}

fn templates<'a>(set: &Set<'a>) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    let templates = set.stored.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    templates
        .into_iter()
        .flatten()
        .filter_map(|template| Some((template.pointer("/metadata/name")?.as_str()?, template)))
}

fn claim_name(set: &Set<'_>, template: &str, ordinal: i32) -> String {
    format!("{template}-{}", pod_name(set.set, ordinal))
}

/// The volumes of the pod of an ordinal: its claims, and those of `others` that aren't called like one.
pub(super) fn volumes(set: &Set<'_>, others: Option<&Value>, ordinal: i32) -> Vec<Value> {
    let claims = templates(set).map(|(template, _)| {
        json!({"name": template, "persistentVolumeClaim": {"claimName": claim_name(set, template, ordinal)}})
    });
    let is_other = |volume: &&Value| templates(set).all(|(template, _)| volume["name"] != template);
    let others = others.and_then(Value::as_array).into_iter().flatten().filter(is_other);
    claims.chain(others.cloned()).collect()
}

/// Whether a pod has the claims of its ordinal as volumes.
pub(super) fn are_used_by(set: &Set<'_>, pod: &Pod, ordinal: i32) -> bool {
    templates(set).all(|(template, _)| {
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let volume = volumes.find(|volume| volume.name == template);
        let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        claim.is_some_and(|source| source.claim_name == claim_name(set, template, ordinal))
    })
}

/// Makes the claims of an ordinal that aren't there.
pub(super) fn make_missing(set: &Set<'_>, ordinal: i32, plan: &mut Plan) -> Result<(), Hindrance> {
    let mut made = Ok(());
    for (template, value) in templates(set) {
        let name = claim_name(set, template, ordinal);
        match find(set, &name) {
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
                return Err(Hindrance::IsDeleted(name));
            }
            Some(_) => {}
            None => {
                plan.actions.extend(creation(set, value, name, ordinal));
                made = Err(Hindrance::Waits);
            }
        }
    }
    made
}

/// Whether one of the claims of an ordinal without a pod goes with the pod that it had: what comes after waits for that.
pub(super) fn are_stale(set: &Set<'_>, ordinal: i32) -> bool {
    let pod = pod_name(set.set, ordinal);
    Policy::of(set).go_with_pod
        && templates(set).any(|(template, _)| {
            let claim = find(set, &claim_name(set, template, ordinal));
            claim.is_some_and(|claim| owners(&claim).any(|owner| means::<Pod>(owner, &pod)))
        })
}

/// Gives the claims of an ordinal the owners that the policy asks for. `pod` is the pod of the ordinal, as far as there is one;
/// `is_wanted` says whether the set still has the ordinal.
pub(super) fn set_owners(set: &Set<'_>, ordinal: i32, pod: Option<&Pod>, is_wanted: bool, plan: &mut Plan) {
    for (template, _) in templates(set) {
        let Some(claim) = find(set, &claim_name(set, template, ordinal)) else { continue };
        if let Some(owners) = other_owners(set, &claim, ordinal, pod, is_wanted) {
            let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
            plan.write(merge_this(&claim, "", json!({"metadata": {"ownerReferences": owners}})));
        }
    }
}

/// The owners that a claim shall have, if it has others.
fn other_owners(
    set: &Set<'_>,
    claim: &PersistentVolumeClaim,
    ordinal: i32,
    pod: Option<&Pod>,
    is_wanted: bool,
) -> Option<Vec<OwnerReference>> {
    let policy = Policy::of(set);
    let pod_is_called = pod_name(set.set, ordinal);
    let is_set = |owner: &OwnerReference| means_object(owner, set.set);
    let is_pod = |owner: &OwnerReference| means::<Pod>(owner, &pod_is_called);
    let is_uid = |owner: &OwnerReference, metadata: &Metadata| metadata.uid.as_ref() == Some(&owner.uid);
    let is_anothers = |owner: &OwnerReference| {
        // An owner of that name with another uid is gone: what it owned is the garbage collector's business.
        if is_set(owner) {
            !is_uid(owner, &set.set.metadata)
        } else if is_pod(owner) {
            !pod.is_some_and(|pod| is_uid(owner, &pod.metadata))
        } else {
            owner.controller == Some(true)
        }
    };
    let has_other = (policy.go_with_set || policy.go_with_pod) && owners(claim).any(is_anothers);
    let mut wanted: Vec<OwnerReference> =
        owners(claim).filter(|owner| !is_set(owner) && !is_pod(owner)).cloned().collect();
    if !has_other {
        match (is_wanted, pod) {
            (false, Some(pod)) if policy.go_with_pod => wanted.push(owner_reference(pod)),
            (true, _) if policy.go_with_set => wanted.push(owner_reference(set.set)),
            // What a smaller set gives up stays, until the set goes.
            (false, _) if policy.go_with_set && !policy.go_with_pod => wanted.push(owner_reference(set.set)),
            _ => {}
        }
    }
    let same = owners(claim).count() == wanted.len() && owners(claim).all(|owner| wanted.contains(owner));
    (!same).then_some(wanted)
}

fn owners(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &OwnerReference> {
    claim.metadata.owner_references.iter().flatten()
}

fn means<T: Kind>(owner: &OwnerReference, name: &str) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == T::KIND && group == T::GROUP && owner.name == name
}

fn means_object<T: Kind>(owner: &OwnerReference, object: &T) -> bool {
    means::<T>(owner, object.metadata().name())
}

fn find(set: &Set<'_>, name: &str) -> Option<PersistentVolumeClaim> {
    let namespace = set.set.metadata.namespace.as_deref().unwrap_or_default();
    Reader::<PersistentVolumeClaim>::get(set.view.state(), namespace, name)
}

fn creation(set: &Set<'_>, template: &Value, name: String, ordinal: i32) -> Option<Action> {
    let mut claim = template.clone();
    let metadata = claim.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("name".into(), name.as_str().into());
    metadata.insert("namespace".into(), json!(set.set.metadata.namespace()));
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    for (label, value) in set.spec.selector.match_labels.iter().flatten() {
        labels[label] = value.as_str().into();
    }
    if Policy::of(set).go_with_set {
        metadata.insert("ownerReferences".into(), json!([owner_reference(set.set)]));
    }
    claim["kind"] = "PersistentVolumeClaim".into();
    claim["apiVersion"] = "v1".into();
    let (pod, owner) = (pod_name(set.set, ordinal), set.set.metadata.name.as_deref()?);
    let told = format!("create Claim {name} Pod {pod} in StatefulSet {owner} success");
    let refused = format!("create Claim {name} for Pod {pod} in StatefulSet {owner} failed error: {{}}");
    let told = Occurrence::of(set.set, false, "SuccessfulCreate", told);
    let mut action =
        Action::from(Write::Create(machinery::Object::from_value(claim)?)).telling(Note::Event(told));
    action.refused = Some(Occurrence::of(set.set, true, "FailedCreate", refused));
    Some(action)
}
