//! Volumes of CSI drivers are attached to the nodes whose pods use them, and detached once no pod does.
//!
//! Follows `pkg/controller/volume/attachdetach`, and `pkg/volume/csi` for what it writes: a VolumeAttachment, of which the driver's
//! external-attacher makes it so, and `status.volumesAttached` of the Node, by which the kubelet knows that it may mount. What is
//! wanted follows from pods, claims and volumes; what is, from VolumeAttachments and Nodes: so another leader goes on wherever the last
//! one stopped. As upstream, nothing is done for nodes whose kubelet doesn't leave attaching to a controller.

mod detaching;
mod wanted;

use std::sync::Arc;

use k8s_openapi::api::core::v1::AttachedVolume;
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{Meta, Occurrence, PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Claiming, Group};
use crate::kept::Node;
use crate::key::Key;
use crate::node::ready_status;
use crate::plan::{Action, Note, Plan, create, merge};
use crate::pods::{self, claims};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;
use wanted::{Wanted, unique_name};

/// The annotation of a Node whose kubelet leaves attaching to a controller (`pkg/volume/util`, `ControllerManagedAttachAnnotation`).
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Attaches and detaches the volumes of CSI drivers.
pub(crate) struct Attachments;

impl Controller for Attachments {
    fn name(&self) -> &'static str {
        "attach-detach"
    }

    fn component(&self) -> &'static str {
        "attachdetach-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Node>();
        watches.table::<CSIDriver>();
        watches.table::<PersistentVolume>();
        watches.table::<PersistentVolumeClaim>();
        watches.index::<By<UsersOn>>();
        watches.index::<By<Claiming>>();
        watches.index::<By<OfNode>>();
        watches.index::<By<OfVolume>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let users = view.index::<By<UsersOn>>().into_iter().flat_map(By::values);
        let attached = view.index::<By<OfNode>>().into_iter().flat_map(By::values);
        users.chain(attached).for_each(|node| due.now("", node));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(change) = change.of::<Pod>() {
            // What its containers do changes nothing here, and pods without claims none of it.
            let matters = |pod: &Arc<Pod>| {
                claims(pod).next().map(|_| (pod.node().map(str::to_owned), pods::is_finished(pod)))
            };
            if change.old.as_ref().and_then(matters) != change.new.as_ref().and_then(matters) {
                both(change).filter_map(|pod| pod.node()).for_each(|node| due.now("", node));
            }
        }
        if let Some(change) = change.of::<PersistentVolumeClaim>() {
            let bound = |claim: &Arc<PersistentVolumeClaim>| {
                (claim.phase().to_owned(), claim.volume_name().map(str::to_owned))
            };
            if change.old.as_ref().map(bound) != change.new.as_ref().map(bound)
                && let Some(claim) = both(change).next()
            {
                users(view, &claim.place(), due);
            }
        }
        for volume in change.of::<PersistentVolume>().into_iter().flat_map(both) {
            users_of(view, volume, due);
        }
        for attachment in change.of::<VolumeAttachment>().into_iter().flat_map(both) {
            due.now("", &attachment.spec.node_name);
        }
        // Another node may wait for one that is gone.
        if let Some(change) = change.of::<VolumeAttachment>()
            && let (Some(gone), None) = (&change.old, &change.new)
            && let Some(volume) = volume_of(view, gone)
        {
            users_of(view, volume, due);
        }
        if change.of::<CSIDriver>().is_some() {
            self.all(view, due);
        }
        if let Some(change) = change.of::<Node>()
            && change.old.as_deref().map(Seen::of) != change.new.as_deref().map(Seen::of)
            && let Some(node) = both(change).next()
        {
            due.now("", node.metadata.name());
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.name(), moment)
    }
}

fn reconcile(view: &View, name: &str, moment: &Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let node = view.table::<Node>().get("", name).map(AsRef::as_ref);
    if node.is_some_and(|node| !is_managed(node)) {
        return plan;
    }
    let wanted = Wanted::on(view, name);
    let (mut reported, mut fresh): (Vec<String>, Vec<&Wanted>) = Default::default();
    for attachment in view.by::<OfNode>(name) {
        let called = attachment.metadata.name();
        let status = attachment.status.as_ref();
        let is_attached =
            attachment.metadata.deletion_timestamp.is_none() && status.is_some_and(|status| status.attached);
        match wanted.get(called) {
            Some(wanted) => {
                detaching::is_needed(attachment, &mut plan);
                let unique = wanted.unique_name();
                if is_attached {
                    if !known(node).any(|known| known == unique) {
                        fresh.push(wanted);
                    }
                    reported.push(unique);
                } else if let Some(error) = status.and_then(|status| status.attach_error.as_ref()) {
                    let why = error.message.as_deref().unwrap_or_default();
                    plan.told.extend(wanted.failed(why));
                }
            }
            None => {
                let volume = volume_of(view, attachment);
                if detaching::is_ours(attachment, volume) {
                    let unique = volume.and_then(unique_name);
                    let stays = detaching::detach(attachment, unique.as_deref(), node, moment, &mut plan);
                    reported.extend(unique.filter(|_| stays && is_attached));
                }
            }
        }
    }
    let Some(node) = node else { return plan };
    for (called, wanted) in &wanted {
        if view.table::<VolumeAttachment>().get("", called).is_none() {
            attach(view, name, called, wanted, &mut plan);
        }
    }
    reported.sort();
    report(node, reported, &fresh, &mut plan);
    plan
}

/// Has a volume attached, unless it is to be on one node alone and is still on another.
fn attach(view: &View, node: &str, called: &str, wanted: &Wanted<'_>, plan: &mut Plan) {
    let volume = wanted.volume.metadata.name();
    let mut elsewhere = view.by::<OfVolume>(volume).filter(|other| other.spec.node_name != node);
    if wanted.is_exclusive()
        && let Some(other) = elsewhere.next()
    {
        plan.told.extend(wanted.is_elsewhere(view, &other.spec.node_name));
        return;
    }
    let attachment = VolumeAttachment {
        metadata: ObjectMeta { name: Some(called.to_owned()), ..ObjectMeta::default() },
        spec: VolumeAttachmentSpec {
            attacher: wanted.driver().to_owned(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(volume.to_owned()),
                ..VolumeAttachmentSource::default()
            },
        },
        status: None,
    };
    if let Some(write) = create(&attachment) {
        let mut action = Action::from(write);
        action.refused = wanted.failed("{}").next();
        plan.actions.push(action);
    }
}

/// Says on the Node which volumes are attached to it, and of those that were not known before to the pods that wait for them.
fn report(node: &Node, volumes: Vec<String>, fresh: &[&Wanted<'_>], plan: &mut Plan) {
    let mut before: Vec<&str> = known(Some(node)).collect();
    before.sort_unstable();
    if before == volumes {
        return;
    }
    let volumes: Vec<_> =
        volumes.into_iter().map(|name| AttachedVolume { name, device_path: String::new() }).collect();
    let mut action = Action::from(merge(node, "status", json!({"status": {"volumesAttached": volumes}})));
    for wanted in fresh {
        action.done.extend(wanted.succeeded().map(Note::Event));
    }
    plan.actions.push(action);
}

/// The volumes that a Node says are attached to it.
fn known(node: Option<&Node>) -> impl Iterator<Item = &str> {
    let status = node.and_then(|node| node.status.as_ref());
    let attached = status.and_then(|status| status.volumes_attached.as_ref());
    attached.into_iter().flatten().map(|volume| volume.name.as_str())
}

fn is_managed(node: &Node) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(MANAGED)).is_some_and(|value| value == "true")
}

/// What of a Node matters here.
#[derive(PartialEq)]
struct Seen<'a> {
    is_managed: bool,
    ready: &'a str,
    is_off: bool,
    in_use: Vec<&'a str>,
    attached: Vec<&'a str>,
}

impl<'a> Seen<'a> {
    fn of(node: &'a Node) -> Self {
        Seen {
            is_managed: is_managed(node),
            ready: ready_status(node),
            is_off: detaching::is_off(node),
            in_use: detaching::in_use(node).collect(),
            attached: known(Some(node)).collect(),
        }
    }
}

/// The volume that an attachment is of.
fn volume_of<'a>(view: &'a View, attachment: &VolumeAttachment) -> Option<&'a PersistentVolume> {
    let name = attachment.spec.source.persistent_volume_name.as_deref()?;
    view.table::<PersistentVolume>().get("", name).map(AsRef::as_ref)
}

/// The nodes of those who use a volume are looked at.
fn users_of(view: &View, volume: &PersistentVolume, due: &mut Due<'_>) {
    let is_csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    if let Some((namespace, name)) = volume.claim().filter(|_| is_csi) {
        users(view, &format!("{namespace}/{name}"), due);
    }
}

fn users(view: &View, claim: &str, due: &mut Due<'_>) {
    view.by::<Claiming>(claim).filter_map(|pod| pod.node()).for_each(|node| due.now("", node));
}

/// Pods with claims, by their node.
struct UsersOn;

impl Group for UsersOn {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        if claims(pod).next().is_some() {
            pod.node().into_iter().for_each(each);
        }
    }
}

/// Attachments by their node.
struct OfNode;

impl Group for OfNode {
    type Of = VolumeAttachment;

    fn values(attachment: &VolumeAttachment, each: &mut dyn FnMut(&str)) {
        each(&attachment.spec.node_name);
    }
}

/// Attachments by their volume.
struct OfVolume;

impl Group for OfVolume {
    type Of = VolumeAttachment;

    fn values(attachment: &VolumeAttachment, each: &mut dyn FnMut(&str)) {
        attachment.spec.source.persistent_volume_name.iter().for_each(|name| each(name));
    }
}

/// An event of a pod that has something to do with a volume.
fn event(pod: &Pod, warning: bool, reason: &'static str, what: &str, volume: &str, more: &str) -> Occurrence {
    Occurrence::of(pod, warning, reason, format!("{what} for volume {volume:?} {more}"))
}
