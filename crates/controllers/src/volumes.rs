//! Volumes and claims find each other: a claim gets the smallest volume that is as it asks, or one that is made for it, and
//! both say so until one of them goes.
//!
//! Follows `pkg/controller/volume/persistentvolume`: a binding is written in four steps (the volume names the claim, the
//! volume is Bound, the claim names the volume, the claim is Bound), and each step is decided from what is stored, so that
//! another leader goes on wherever the last one stopped.

mod binding;
mod claim;
mod expansion;
mod local_path;
mod matching;
mod volume;

use k8s_openapi::api::storage::v1::StorageClass;
use objects::{PersistentVolume, PersistentVolumeClaim};

use crate::controller::{Controller, Due, Moment, Urgency, both, latest};
use crate::index::{By, Group};
use crate::key::Key;
use crate::plan::Plan;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

pub(crate) use local_path::{LocalFolders, LocalVolumes};

const COMPONENT: &str = "persistentvolume-controller";

/// Who is to make a volume for a claim, by both of its names.
const PROVISIONERS: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// Gives claims their volumes.
pub(crate) struct ClaimBinder;

impl Controller for ClaimBinder {
    fn name(&self) -> &'static str {
        "claim-binder"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<StorageClass>();
        watches.index::<By<OfClass>>();
        watches.index::<By<Unbound>>();
        watches.index::<By<Reserved>>();
        watches.index::<By<Named>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<PersistentVolumeClaim>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<PersistentVolumeClaim>(change);
        if let Some(change) = change.of::<PersistentVolume>() {
            for volume in both(change) {
                if let Some((namespace, name)) = volume.claim() {
                    due.now(namespace, name);
                }
                due.objects(view.by::<Named>(volume.metadata.name.as_deref().unwrap_or_default()));
            }
        }
        // One that is free now may be what a claim waits for.
        let volume = change.of::<PersistentVolume>().and_then(|change| change.new.as_ref());
        if let Some(volume) =
            volume.filter(|volume| volume.claim().is_none() && volume.phase() == "Available")
        {
            due.objects(view.by::<Unbound>(volume.class()));
        }
        if let Some(class) = change.of::<StorageClass>().and_then(latest) {
            due.objects(view.by::<Unbound>(class.metadata.name.as_deref().unwrap_or_default()));
            // It may be the default one.
            due.objects(view.by::<Unbound>(""));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let claim = view.table::<PersistentVolumeClaim>().get(key.namespace(), key.name());
        claim.map(|claim| claim::reconcile(view, claim)).unwrap_or_default()
    }
}

/// Says of volumes whether they are free, bound or given up, and does with the last what their policy says.
pub(crate) struct VolumeBinder;

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "volume-binder"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<PersistentVolumeClaim>();
        watches.index::<By<Reserved>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<PersistentVolume>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<PersistentVolume>(change);
        let Some(change) = change.of::<PersistentVolumeClaim>() else { return };
        for claim in both(change) {
            due.objects(view.by::<Reserved>(&claim.place()));
            if let Some(volume) = claim.volume_name() {
                due.now("", volume);
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let volume = view.table::<PersistentVolume>().get("", key.name());
        volume.map(|volume| volume::reconcile(view, volume)).unwrap_or_default()
    }
}

/// Volumes that no claim has, by their class.
struct OfClass;

impl Group for OfClass {
    type Of = PersistentVolume;

    fn values(volume: &PersistentVolume, each: &mut dyn FnMut(&str)) {
        if volume.claim().is_none() {
            each(volume.class());
        }
    }
}

/// Volumes by the claim that they name, `NAMESPACE/NAME`.
struct Reserved;

impl Group for Reserved {
    type Of = PersistentVolume;

    fn values(volume: &PersistentVolume, each: &mut dyn FnMut(&str)) {
        volume.claim().into_iter().for_each(|(namespace, name)| each(&format!("{namespace}/{name}")));
    }
}

/// Claims that have no volume yet and name none, by their class.
struct Unbound;

impl Group for Unbound {
    type Of = PersistentVolumeClaim;

    fn values(claim: &PersistentVolumeClaim, each: &mut dyn FnMut(&str)) {
        if claim.volume_name().is_none() {
            each(claim.class());
        }
    }
}

/// Claims by the volume that they name.
struct Named;

impl Group for Named {
    type Of = PersistentVolumeClaim;

    fn values(claim: &PersistentVolumeClaim, each: &mut dyn FnMut(&str)) {
        claim.volume_name().into_iter().for_each(each);
    }
}
