//! What to do about a claim: `syncClaim` upstream.

use std::cmp::Reverse;

use k8s_openapi::api::storage::v1::StorageClass;
use objects::{BIND_COMPLETED, Occurrence, PersistentVolume, PersistentVolumeClaim, SELECTED_NODE};
use serde_json::json;

use super::binding::{self, Status};
use super::matching::{find, mismatch};
use super::{PROVISIONERS, expansion};
use crate::plan::{Plan, merge_this};
use crate::view::View;

/// The annotations that mark a class as the default one.
const DEFAULT_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// What the name of every provisioner begins with that was part of Kubernetes itself.
const IN_TREE: &str = "kubernetes.io/";

pub(super) fn reconcile(view: &View, claim: &PersistentVolumeClaim) -> Plan {
    if claim.annotation(BIND_COMPLETED).is_some() {
        return bound(view, claim);
    }
    // A claim that is going gets no volume any more.
    if claim.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    match claim.volume_name() {
        Some(name) => named(view, claim, name),
        None => unbound(view, claim),
    }
}

/// A claim that was bound before: whatever is missing now was lost.
fn bound(view: &View, claim: &PersistentVolumeClaim) -> Plan {
    let lost = |reason: &'static str, message: &str| {
        let mut plan = Plan::default();
        if claim.phase() != "Lost" {
            plan.told.push(Occurrence::of(claim, true, reason, message.to_owned()));
            binding::set_status(claim, Status::Lost, &mut plan);
        }
        plan
    };
    let Some(name) = claim.volume_name() else {
        let why = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", why);
    };
    let Some(volume) = view.table::<PersistentVolume>().get("", name) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    if volume.claim().is_some() && !volume.is_for(claim) {
        let why = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost("ClaimMisbound", why);
    }
    let mut plan = binding::bind(volume, claim);
    if plan.actions.is_empty() {
        plan = expansion::reconcile(claim, volume);
    }
    plan
}

/// A claim that names its volume, and whose binding is not complete.
fn named(view: &View, claim: &PersistentVolumeClaim, name: &str) -> Plan {
    let mut plan = Plan::default();
    match view.table::<PersistentVolume>().get("", name) {
        Some(volume) if volume.is_for(claim) => return binding::bind(volume, claim),
        Some(volume) if volume.claim().is_none() => match mismatch(volume, claim) {
            None => return binding::bind(volume, claim),
            Some(why) => {
                let why = format!("Cannot bind to requested volume {name:?}: {why}");
                plan.told.push(Occurrence::of(claim, true, "VolumeMismatch", why));
            }
        },
        Some(_) => {
            let why = format!("volume {name:?} already bound to a different claim.");
            plan.told.push(Occurrence::of(claim, true, "FailedBinding", why));
        }
        // It may come.
        None => {}
    }
    binding::set_status(claim, Status::Pending, &mut plan);
    plan
}

/// A claim that takes any volume that is as it asks.
fn unbound(view: &View, claim: &PersistentVolumeClaim) -> Plan {
    let name = claim.class();
    let class = view.table::<StorageClass>().get("", name).map(AsRef::as_ref);
    let waits = class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let delayed = waits && claim.annotation(SELECTED_NODE).is_none();
    // Of a class that waits, the scheduler alone knows which volume is where the pod goes, and reserves it.
    if let Some(volume) = find(view, claim, waits) {
        return binding::bind(volume, claim);
    }
    let mut plan = Plan::default();
    if let Some(class) = claim.wants_default_class().then(|| default_class(view)).flatten() {
        plan.write(merge_this(claim, "", json!({"spec": {"storageClassName": class}})));
        return plan;
    }
    let mut tell = |warning: bool, reason: &'static str, message: String| {
        plan.told.push(Occurrence::of(claim, warning, reason, message));
    };
    let mut provisioner = None;
    if delayed {
        let message = "waiting for first consumer to be created before binding";
        tell(false, "WaitForFirstConsumer", message.to_owned());
    } else if name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        tell(false, "FailedBinding", message.to_owned());
    } else {
        match class.map(|class| class.provisioner.as_str()) {
            None => {
                let message = format!("storageclass.storage.k8s.io {name:?} not found");
                tell(true, "ProvisioningFailed", message);
            }
            Some(in_tree) if in_tree.starts_with(IN_TREE) => {
                tell(true, "ProvisioningFailed", format!("no volume plugin matched name: {in_tree}"));
            }
            Some(outside) => {
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner '{outside}' or manually by \
                     the system administrator. If volume creation is delayed, please verify that the provisioner is \
                     running and correctly registered."
                );
                tell(false, "ExternalProvisioning", message);
                provisioner = Some(outside);
            }
        }
    }
    binding::set_status(claim, Status::Pending, &mut plan);
    // Each write is of the version that was looked at, and so they come one by one.
    if let Some(provisioner) = provisioner
        && plan.actions.is_empty()
        && PROVISIONERS.iter().any(|name| claim.annotation(name) != Some(provisioner))
    {
        let asked: serde_json::Map<_, _> =
            PROVISIONERS.iter().map(|name| ((*name).to_owned(), provisioner.into())).collect();
        plan.write(merge_this(claim, "", json!({"metadata": {"annotations": asked}})));
    }
    plan
}

/// The class of claims that name none, if there is one: the newest that is marked (upstream: `GetDefaultClass`). One that was made
/// before there was a default class gets it later.
fn default_class(view: &View) -> Option<&str> {
    let is_marked = |class: &StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .is_some_and(|all| DEFAULT_MARKS.iter().any(|mark| all.get(*mark).is_some_and(|is| is == "true")))
    };
    let marked = view.table::<StorageClass>().iter().filter(|class| is_marked(class));
    let newest = marked.max_by_key(|class| {
        (class.metadata.creation_timestamp.clone(), Reverse(class.metadata.name.clone()))
    });
    newest.and_then(|class| class.metadata.name.as_deref())
}
