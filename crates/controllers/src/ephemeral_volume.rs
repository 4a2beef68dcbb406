//! The claims of pods' own volumes: `pkg/controller/volume/ephemeral` (KEP-1698).

use machinery::Object;
use objects::{Change, Meta, Occurrence, PersistentVolumeClaim, Pod, Write};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::index::{By, Group};
use crate::key::Key;
use crate::plan::{Action, Plan};
use crate::pod_writes::owner_reference;
use crate::pods;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Makes the claims of volumes that live as long as their pod.
pub(crate) struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volumes"
    }

    fn component(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<PersistentVolumeClaim>();
        watches.index::<By<Templates>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Pod>().iter().filter(|pod| templates(pod).next().is_some()));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(Change { new: Some(pod), .. }) = change.of::<Pod>()
            && templates(pod).next().is_some()
        {
            due.object(pod.as_ref());
        }
        if let Some(Change { old: Some(claim), new: None, .. }) = change.of::<PersistentVolumeClaim>() {
            due.objects(view.by::<Templates>(&claim.place()));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.table::<Pod>().get(key.namespace(), key.name()) else { return plan };
        if !pods::is_active(pod) {
            return plan;
        }
        let missing = |name: &&str| {
            view.table::<PersistentVolumeClaim>().get(key.namespace(), &claim_name(pod, name)).is_none()
        };
        let missing: Vec<&str> = templates(pod).filter(missing).collect();
        if missing.is_empty() {
            return plan;
        }
        // The pod in memory has no templates.
        let Some(stored) = view.json(pod.as_ref()) else { return plan };
        plan.actions.extend(missing.into_iter().filter_map(|volume| creation(pod, &stored, volume)));
        plan
    }
}

/// Pods by the claims of their own volumes, `NAMESPACE/NAME`.
struct Templates;

impl Group for Templates {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        templates(pod).for_each(|volume| each(&format!("{namespace}/{}", claim_name(pod, volume))));
    }
}

/// The names of a pod's volumes that it has for itself.
fn templates(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.ephemeral).map(|volume| volume.name.as_str())
}

fn claim_name(pod: &Pod, volume: &str) -> String {
    objects::ephemeral_claim(pod.metadata.name(), volume)
}

fn creation(pod: &Pod, stored: &Value, volume: &str) -> Option<Action> {
    let volumes = stored.pointer("/spec/volumes")?.as_array()?;
    let template =
        volumes.iter().find(|known| known["name"] == volume)?.pointer("/ephemeral/volumeClaimTemplate")?;
    let name = claim_name(pod, volume);
    let claim = json!({
        "kind": "PersistentVolumeClaim", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": pod.metadata.namespace(),
            "labels": template.pointer("/metadata/labels"), "annotations": template.pointer("/metadata/annotations"),
            "ownerReferences": [owner_reference(pod)],
        },
        "spec": template["spec"],
    });
    let why = format!("ephemeral volume {volume}: create PVC {name}: {{}}");
    let mut action = Action::from(Write::Create(Object::from_value(claim)?));
    action.refused = Some(Occurrence::of(pod, true, "FailedCreate", why));
    Some(action)
}
