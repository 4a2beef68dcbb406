//! Volumes, claims and classes of volumes' attributes that are to be deleted: they go once nobody uses them.
//!
//! Follows `pkg/controller/volume/pvcprotection`, `pvprotection` and `vacprotection`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use objects::{Change, Kind, Meta, Pod, Reader};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Claiming, Group};
use crate::key::Key;
use crate::plan::{Plan, merge_this};
use crate::pods::claims;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

const OF_CLAIM: &str = "kubernetes.io/pvc-protection";
const OF_VOLUME: &str = "kubernetes.io/pv-protection";
const OF_CLASS: &str = "kubernetes.io/vac-protection";

/// Protects claims that are used.
pub(crate) struct Claims;

impl Controller for Claims {
    fn name(&self) -> &'static str {
        "claim-protection"
    }

    fn component(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<By<Claiming>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let claims = view.graph.iter().filter(|node| &*node.kind == "PersistentVolumeClaim");
        claims.for_each(|claim| due.now(&claim.namespace, claim.name()));
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        let new = change.owned().new.as_ref().filter(|node| &*node.kind == "PersistentVolumeClaim");
        new.into_iter().for_each(|claim| due.now(&claim.namespace, claim.name()));
        if let Some(Change { old: Some(pod), new: None, .. }) = change.of::<Pod>() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            claims(pod).for_each(|claim| due.now(namespace, &claim));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile_claim(view, key.namespace(), key.name())
    }
}

/// Protects volumes that are bound.
pub(crate) struct Volumes;

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "volume-protection"
    }

    fn component(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, _: &mut Watches<'_>) {}

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let volumes = view.graph.iter().filter(|node| &*node.kind == "PersistentVolume");
        volumes.for_each(|volume| due.now("", volume.name()));
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        let new = change.owned().new.as_ref().filter(|node| &*node.kind == "PersistentVolume");
        new.into_iter().for_each(|volume| due.now("", volume.name()));
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile_volume(view, key.name())
    }
}

/// Protects classes of volumes' attributes that a volume has, or a claim has, gets or asks for.
pub(crate) struct AttributesClasses;

impl Controller for AttributesClasses {
    fn name(&self) -> &'static str {
        "attributes-class-protection"
    }

    fn component(&self) -> &'static str {
        "vac-protection-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<VolumeAttributesClass>();
        watches.index::<By<ClaimsOfAttributes>>();
        watches.index::<By<VolumesOfAttributes>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<VolumeAttributesClass>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<VolumeAttributesClass>(change);
        let mut of_class = |class: &str| due.now("", class);
        for claim in change.of::<objects::PersistentVolumeClaim>().into_iter().flat_map(both) {
            ClaimsOfAttributes::values(claim, &mut of_class);
        }
        for volume in change.of::<objects::PersistentVolume>().into_iter().flat_map(both) {
            VolumesOfAttributes::values(volume, &mut of_class);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let Some(class) = view.table::<VolumeAttributesClass>().get("", key.name()) else {
            return Plan::default();
        };
        let used = || {
            view.by::<ClaimsOfAttributes>(key.name()).next().is_some()
                || view.by::<VolumesOfAttributes>(key.name()).next().is_some()
        };
        keep_or_release(class.as_ref(), OF_CLASS, used)
    }
}

/// Claims by the classes of attributes that they ask for, have, and are getting.
struct ClaimsOfAttributes;

impl Group for ClaimsOfAttributes {
    type Of = objects::PersistentVolumeClaim;

    fn values(claim: &Self::Of, each: &mut dyn FnMut(&str)) {
        let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
        let asked = spec.and_then(|spec| spec.volume_attributes_class_name.as_deref());
        let has = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
        let modified = status.and_then(|status| status.modify_volume_status.as_ref());
        let gets = modified.and_then(|modified| modified.target_volume_attributes_class_name.as_deref());
        [asked, has, gets].into_iter().flatten().filter(|class| !class.is_empty()).for_each(each);
    }
}

/// Volumes by the class of their attributes.
struct VolumesOfAttributes;

impl Group for VolumesOfAttributes {
    type Of = objects::PersistentVolume;

    fn values(volume: &Self::Of, each: &mut dyn FnMut(&str)) {
        let class = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
        class.filter(|class| !class.is_empty()).into_iter().for_each(each);
    }
}

/// Protects a claim, or lets it go if it is to be deleted and no pod on any node uses it.
fn reconcile_claim(view: &View, namespace: &str, name: &str) -> Plan {
    let Some(claim) = Reader::<PersistentVolumeClaim>::get(view.state(), namespace, name) else {
        return Plan::default();
    };
    // A pod without a node is never started once its claim is being deleted.
    let used = || view.by::<Claiming>(&format!("{namespace}/{name}")).any(|pod| pod.node().is_some());
    keep_or_release(&claim, OF_CLAIM, used)
}

/// Protects a volume, or lets it go if it is to be deleted and bound to no claim.
fn reconcile_volume(view: &View, name: &str) -> Plan {
    let Some(volume) = Reader::<PersistentVolume>::get(view.state(), "", name) else {
        return Plan::default();
    };
    let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    keep_or_release(&volume, OF_VOLUME, || bound)
}

fn keep_or_release<T: Kind>(object: &T, finalizer: &str, used: impl Fn() -> bool) -> Plan {
    let mut plan = Plan::default();
    let metadata = object.metadata();
    let mut finalizers: Vec<&str> = metadata.finalizers().iter().map(String::as_str).collect();
    let has = finalizers.contains(&finalizer);
    match metadata.deletion_timestamp() {
        Some(_) if has && !used() => finalizers.retain(|known| *known != finalizer),
        None if !has => finalizers.push(finalizer),
        _ => return plan,
    }
    plan.write(merge_this(object, "", json!({"metadata": {"finalizers": finalizers}})));
    plan
}
