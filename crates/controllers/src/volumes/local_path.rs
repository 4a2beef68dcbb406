//! Volumes that are folders of one host: made for claims of the provisioner [`LOCAL_PATH`], and gone again once the host's
//! agent has removed the folder.

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume as Whole,
    PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{
    HOSTNAME, LOCAL_PATH, Labels, Meta, Occurrence, PROVISIONED_BY, PersistentVolume, PersistentVolumeClaim,
    SELECTED_NODE, VOLUMES, awaits_folder, host_of,
};
use serde_json::json;

use super::{COMPONENT, PROVISIONERS, Unbound};
use crate::controller::{Controller, Due, Moment, Urgency, both, latest};
use crate::index::{By, Group};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Action, Note, Plan, create, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Makes volumes for claims.
pub(crate) struct LocalVolumes;

impl Controller for LocalVolumes {
    fn name(&self) -> &'static str {
        "local-volumes"
    }

    fn component(&self) -> &'static str {
        LOCAL_PATH
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<StorageClass>();
        watches.table::<Node>();
        watches.table::<PersistentVolume>();
        watches.index::<By<Unbound>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<PersistentVolumeClaim>().iter().filter(|claim| is_asked(claim)));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let claim = change.of::<PersistentVolumeClaim>().and_then(|change| change.new.as_ref());
        due.objects(claim.filter(|claim| is_asked(claim)));
        if let Some(class) = change.of::<StorageClass>().and_then(latest) {
            let claims = view.by::<Unbound>(class.metadata.name.as_deref().unwrap_or_default());
            due.objects(claims.filter(|claim| is_asked(claim)));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let claim = view.table::<PersistentVolumeClaim>().get(key.namespace(), key.name());
        let Some(claim) = claim.filter(|claim| is_asked(claim)) else { return plan };
        let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        if view.table::<PersistentVolume>().get("", &name).is_some() {
            return plan;
        }
        // The scheduler chooses a node first, or another one.
        let class = view.table::<StorageClass>().get("", claim.class());
        let waits =
            class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        if waits && claim.annotation(SELECTED_NODE).is_none() {
            return plan;
        }
        match volume_for(view, claim, &name) {
            Ok(volume) => {
                let told = format!("Successfully provisioned volume {name}");
                let told = Occurrence::of(claim.as_ref(), false, "ProvisioningSucceeded", told);
                let why = format!("failed to provision volume {name}: {{}}");
                plan.actions.extend(create(&volume).map(|write| Action {
                    refused: Some(Occurrence::of(claim.as_ref(), true, "ProvisioningFailed", why)),
                    ..Action::from(write).telling(Note::Event(told))
                }));
            }
            Err(why) => {
                plan.told.push(Occurrence::of(claim.as_ref(), true, "ProvisioningFailed", why.message));
                if why.is_of_node {
                    // The scheduler chooses again.
                    let anew = json!({"metadata": {"annotations": {(SELECTED_NODE): null}}});
                    plan.write(merge_this(claim.as_ref(), "", anew));
                }
            }
        }
        plan
    }
}

/// Why no volume can be made for a claim.
struct Refused {
    message: String,
    /// Another node may do.
    is_of_node: bool,
}

impl From<&str> for Refused {
    fn from(message: &str) -> Self {
        Refused { message: message.to_owned(), is_of_node: false }
    }
}

/// Whether a claim waits for a volume to be made here.
fn is_asked(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(PROVISIONERS[1]) == Some(LOCAL_PATH)
        && claim.volume_name().is_none()
        && claim.metadata.deletion_timestamp.is_none()
}

/// The volume for a claim on the node that the scheduler selected.
fn volume_for(view: &View, claim: &PersistentVolumeClaim, name: &str) -> Result<Whole, Refused> {
    let class = view.table::<StorageClass>().get("", claim.class());
    let class = class.ok_or_else(|| Refused::from("the claim's StorageClass is gone"))?;
    if class.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        return Err("the StorageClass has parameters, and this provisioner knows none".into());
    }
    let spec = claim.spec.as_ref().ok_or("the claim has no spec")?;
    if spec.selector.is_some() {
        return Err("claim Selector is not supported".into());
    }
    if claim.mode() != "Filesystem" {
        return Err("a folder is no block device: volumeMode must be Filesystem".into());
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    if modes.iter().any(|mode| mode != "ReadWriteOnce" && mode != "ReadWriteOncePod") {
        return Err("a folder is on one host: accessModes can be ReadWriteOnce or ReadWriteOncePod".into());
    }
    let node = claim.annotation(SELECTED_NODE).ok_or(
        "a folder is on one host, so somebody must choose the host: volumeBindingMode of the StorageClass must be \
         WaitForFirstConsumer",
    )?;
    let no_node = |why: String| Refused { message: why, is_of_node: true };
    let found =
        view.table::<Node>().get("", node).ok_or_else(|| no_node(format!("node {node:?} not found")))?;
    let text = |map: Option<&Labels>, name: &str| map?.get(name).cloned();
    let folder = text(found.metadata.annotations(), VOLUMES)
        .ok_or_else(|| no_node(format!("node {node:?} has no folder for volumes")))?;
    let hostname = text(found.metadata.labels(), HOSTNAME)
        .ok_or_else(|| no_node(format!("node {node:?} has no label {HOSTNAME}")))?;
    let on_host =
        NodeSelectorRequirement { key: HOSTNAME.into(), operator: "In".into(), values: Some(vec![hostname]) };
    let terms = vec![NodeSelectorTerm { match_expressions: Some(vec![on_host]), match_fields: None }];
    let requests =
        spec.resources.as_ref().and_then(|resources| resources.requests.clone()).unwrap_or_default();
    Ok(Whole {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some([(PROVISIONED_BY.to_owned(), LOCAL_PATH.to_owned())].into()),
            finalizers: Some(vec![LOCAL_PATH.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: Some(requests.into_iter().filter(|(what, _)| what == "storage").collect()),
            claim_ref: Some(claim.reference()),
            local: Some(LocalVolumeSource { path: format!("{folder}/{name}"), fs_type: None }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: terms }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// Lets volumes go whose host is gone for good, and their folders with it.
pub(crate) struct LocalFolders;

impl Controller for LocalFolders {
    fn name(&self) -> &'static str {
        "local-folders"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.index::<By<OnHost>>();
        watches.index::<By<Hostname>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<PersistentVolume>().iter().filter(|volume| awaits_folder(&volume.metadata)));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(
            change
                .of::<PersistentVolume>()
                .and_then(latest)
                .into_iter()
                .filter(|volume| awaits_folder(&volume.metadata)),
        );
        for node in change.of::<Node>().into_iter().flat_map(both) {
            Hostname::values(node, &mut |hostname| due.objects(view.by::<OnHost>(hostname)));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let volume = view.table::<PersistentVolume>().get("", key.name());
        let Some(volume) = volume.filter(|volume| awaits_folder(&volume.metadata)) else { return plan };
        let Some(hostname) = volume.spec.as_ref().and_then(host_of) else { return plan };
        if view.by::<Hostname>(hostname).next().is_some() {
            return plan;
        }
        let told = format!("host {hostname:?} is gone, and what was in the volume with it");
        let told = Occurrence::of(volume.as_ref(), true, "VolumeFailedDelete", told);
        let write = merge_this(volume.as_ref(), "", json!({"metadata": {"finalizers": null}}));
        plan.actions.push(Action::from(write).telling(Note::Event(told)));
        plan
    }
}

/// Volumes that are to be deleted once their folder is, by their host.
struct OnHost;

impl Group for OnHost {
    type Of = PersistentVolume;

    fn values(volume: &PersistentVolume, each: &mut dyn FnMut(&str)) {
        if awaits_folder(&volume.metadata) {
            volume.spec.as_ref().and_then(host_of).into_iter().for_each(each);
        }
    }
}

/// Nodes by the label that volumes name them by, and by their names: a label that somebody changes is no host that is gone.
struct Hostname;

impl Group for Hostname {
    type Of = Node;

    fn values(node: &Node, each: &mut dyn FnMut(&str)) {
        let labels = node.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get(HOSTNAME)).map(String::as_str);
        let name = node.metadata.name.as_deref();
        label.into_iter().chain(name.filter(|name| label != Some(*name))).for_each(each);
    }
}
