//! What a pod's claims ask of its node: where their volumes are, and where volumes for them can be.
//!
//! Follows `plugins/volumebinding` and, for volumes of a single pod, `plugins/volumerestrictions` upstream. A claim without a
//! volume, whose class waits for its first pod, gets one where the pod goes: the scheduler says so on the claim or on the volume,
//! and binds the pod once controllers have bound the claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{NodeSelector, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;
use objects::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, Change, Kind, LOCAL_PATH, Meta, PersistentVolume,
    PersistentVolumeClaim, Pod, SELECTED_NODE, Table, TypedRef, Write, ephemeral_claim,
};
use serde_json::json;
use store::{Event, State};

use crate::attachments::{Attached, Brought, VolumeAttachmentSpec, VolumeAttachments};
use crate::capacity::{Capacities, Room};
use crate::device_claims::DeviceNeed;
use crate::node::Node;
use crate::promises::{Promise, Promises};
use crate::unschedulable::{Hope, Reason};
use crate::volume_zone::VolumeZones;

/// What makes no volumes: somebody else made those that there are.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The way of mounting a volume that only one pod may have.
const ONE_POD: &str = "ReadWriteOncePod";

/// Claims, volumes and classes.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    claims: Table<PersistentVolumeClaim>,
    volumes: Table<PersistentVolume>,
    classes: Table<StorageClass>,
    capacities: Capacities,
    /// The names of volumes that no claim has, or that are kept for one that has none yet, by class.
    free: BTreeMap<String, BTreeSet<String>>,
    /// The keys of placed pods, by each claim that they use, `NAMESPACE/NAME`.
    users: BTreeMap<String, BTreeSet<Bytes>>,
    /// What VolumeAttachments say.
    pub attachments: VolumeAttachments,
    /// What claims get of which the state says nothing yet.
    promises: Promises,
}

/// What a pod's claims ask of its node. Two pods of which it is the same can go to the same nodes, as far as volumes matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Need {
    /// Where each volume is that a claim has.
    fixed: Vec<Arc<NodeSelector>>,
    /// Where they are by their labels.
    pub zones: VolumeZones,
    /// What is attached to its node for it, by the CSI driver.
    pub attach: BTreeMap<String, Brought>,
    /// Claims that get their volume with the pod's node.
    open: Vec<OpenClaim>,
    /// What its claims of devices ask for.
    pub devices: DeviceNeed,
}

/// A claim that gets its volume where its pod goes; replicas with a claim each need the same.
#[derive(Debug, Clone, PartialEq)]
struct OpenClaim {
    /// Where its volume is being made.
    selected: Option<String>,
    /// Volumes that are as it asks, the smallest first, each with where it is.
    volumes: Vec<(String, Option<Arc<NodeSelector>>)>,
    /// Where one can be made; nothing if none is made for it.
    makes: Option<Makes>,
}

/// Where a class makes volumes.
#[derive(Debug, Clone, PartialEq)]
struct Makes {
    /// One of these is met; none is anywhere.
    allowed: Vec<TopologySelectorTerm>,
    /// As folders, by the agents of nodes that say so.
    in_folders: bool,
    /// Where there is room for it, if what makes it says so.
    room: Option<Room>,
}

impl Makes {
    fn on(&self, node: &Node) -> Result<(), Lack> {
        if !is_allowed(&self.allowed, node) || (self.in_folders && !node.makes_folders()) {
            return Err(Lack::Volume);
        }
        match &self.room {
            Some(room) if !room.is_on(node) => Err(Lack::Room),
            _ => Ok(()),
        }
    }
}

/// What a node lacks for claims that get their volumes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// A volume, and anybody who makes one.
    Volume,
    /// Room for one that would be made.
    Room,
}

/// Why a pod can be on no node whatever the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Of the pod itself, said once.
    Pod(String),
    /// Of each node, as upstream counts it.
    EachNode(&'static str),
}

impl Storage {
    /// Takes in all of a state.
    pub fn load(&mut self, state: &State) {
        self.claims = Table::load(state);
        self.volumes = Table::load(state);
        self.classes = Table::load(state);
        self.capacities = Capacities::load(state);
        let free: Vec<_> = self.volumes.iter().filter(|volume| is_free(volume)).cloned().collect();
        free.iter().for_each(|volume| self.offer(volume));
    }

    /// Takes one change in. Nothing if it is of something else.
    pub fn apply(&mut self, event: &Event) -> Option<Hope> {
        if let Some(Change { old, new, .. }) = self.volumes.apply(event) {
            if let Some(old) = old.filter(|old| is_free(old)) {
                self.withdraw(&old);
            }
            if let Some(new) = new.filter(|new| is_free(new)) {
                self.offer(&new);
            }
            return Some(Hope::VOLUMES);
        }
        let applied = self.claims.apply(event).is_some()
            || self.classes.apply(event).is_some()
            || self.capacities.apply(event);
        applied.then_some(Hope::VOLUMES)
    }

    fn offer(&mut self, volume: &PersistentVolume) {
        let names = self.free.entry(volume.class().to_owned()).or_default();
        names.insert(volume.metadata.name().to_owned());
    }

    fn withdraw(&mut self, volume: &PersistentVolume) {
        if let Some(names) = self.free.get_mut(volume.class()) {
            names.remove(volume.metadata.name());
            if names.is_empty() {
                self.free.remove(volume.class());
            }
        }
    }

    /// A pod has a place.
    pub fn placed(&mut self, key: &Bytes, pod: &Pod) {
        for claim in claims(pod) {
            self.users.entry(place(pod, &claim.name)).or_default().insert(key.clone());
        }
    }

    /// A pod has its place no longer.
    pub fn gone(&mut self, key: &Bytes, pod: &Pod) {
        for claim in claims(pod) {
            let place = place(pod, &claim.name);
            if let Some(users) = self.users.get_mut(&place) {
                users.remove(key);
                if users.is_empty() {
                    self.users.remove(&place);
                }
            }
        }
    }

    /// What a pod's claims ask of its node.
    ///
    /// # Errors
    /// [`Refusal`] if they keep it from every node.
    pub fn need(&self, pod: &Pod) -> Result<Need, Refusal> {
        let mut need = Need::default();
        for wanted in claims(pod) {
            let claim = self.claim(pod, &wanted)?;
            let others = self.users.get(&place(pod, &wanted.name)).into_iter().flatten();
            if claim.has_mode(ONE_POD) && others.clone().any(|user| *user != crate::cluster::key(pod)) {
                let why = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
                return Err(Refusal::EachNode(why));
            }
            match claim.volume_name() {
                Some(name) => {
                    let volume = self.bound(claim, name)?;
                    need.fixed.extend(place_of(volume));
                    need.zones.add(volume);
                }
                None => need.open.push(self.open(claim)?),
            }
        }
        for Attached { driver, claim } in self.attached(pod) {
            let brought = need.attach.entry(driver).or_default();
            if self.users.contains_key(&claim) || self.attachments.has(&claim) {
                brought.shared.insert(claim);
            } else {
                brought.new += 1;
            }
        }
        Ok(need)
    }

    /// What a VolumeAttachment is of: by the volume's claim where it is known, else by its own name, which no claim has.
    pub fn attachment(&self, spec: &VolumeAttachmentSpec) -> Option<Attached> {
        let name = spec.source.persistent_volume_name.as_deref()?;
        let claim = self.volumes.get("", name).and_then(|volume| volume.claim());
        let (namespace, name) = claim.unwrap_or(("", name));
        Some(Attached { driver: spec.attacher.clone(), claim: format!("{namespace}/{name}") })
    }

    /// The volumes of CSI drivers that a pod has, or gets.
    pub fn attached(&self, pod: &Pod) -> Vec<Attached> {
        let claims = claims(pod).filter_map(|wanted| self.claims.get(pod.metadata.namespace(), &wanted.name));
        let driver = |claim: &PersistentVolumeClaim| {
            let promised = match self.promises.to(&claim.place()) {
                Some(Promise::Volume(name)) => Some(name.as_str()),
                _ => None,
            };
            match claim.volume_name().or(promised) {
                Some(name) => {
                    self.volumes.get("", name)?.spec.as_ref()?.csi.as_ref().map(|csi| csi.driver.clone())
                }
                // What makes its volume attaches it, as upstream takes it.
                None => {
                    let provisioner = &self.classes.get("", claim.class())?.provisioner;
                    let attaches = ![NO_PROVISIONER, LOCAL_PATH].contains(&provisioner.as_str());
                    attaches.then(|| provisioner.clone())
                }
            }
        };
        let attached =
            claims.filter_map(|claim| Some(Attached { driver: driver(claim)?, claim: claim.place() }));
        // One volume may stand in a pod twice.
        let mut attached: Vec<Attached> = attached.collect();
        attached.sort();
        attached.dedup();
        attached
    }

    fn claim(&self, pod: &Pod, wanted: &Wanted) -> Result<&PersistentVolumeClaim, Refusal> {
        let refused = |why: String| Err(Refusal::Pod(why));
        let Some(claim) = self.claims.get(pod.metadata.namespace(), &wanted.name) else {
            let name = &wanted.name;
            return refused(match wanted.is_own {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                ),
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        let owners = claim.metadata.owners();
        if wanted.is_own && !owners.iter().any(|owner| Some(owner.uid.as_str()) == pod.metadata.uid()) {
            let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
            return refused(format!(
                "PVC {namespace}/{} was not created for pod {namespace}/{name} (pod is not owner)",
                wanted.name
            ));
        }
        if claim.phase() == "Lost" {
            let volume = claim.volume_name().unwrap_or_default();
            return refused(format!(
                "persistentvolumeclaim {:?} bound to non-existent persistentvolume {volume:?}",
                wanted.name
            ));
        }
        if claim.metadata.deletion_timestamp().is_some() {
            return refused(format!("persistentvolumeclaim {:?} is being deleted", wanted.name));
        }
        Ok(claim)
    }

    /// The volume of a claim.
    fn bound(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<&PersistentVolume, Refusal> {
        // A person named the volume, and the other side has not agreed yet.
        if claim.annotation(BIND_COMPLETED).is_none() {
            return Err(Refusal::Pod("pod has unbound immediate PersistentVolumeClaims".into()));
        }
        let volume = self.volumes.get("", name).map(|volume| &**volume);
        volume.ok_or(Refusal::EachNode(
            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ))
    }

    fn open(&self, claim: &PersistentVolumeClaim) -> Result<OpenClaim, Refusal> {
        let class = self.classes.get("", claim.class());
        let mode = class.and_then(|class| class.volume_binding_mode.as_deref());
        let Some(class) = class.filter(|_| mode == Some("WaitForFirstConsumer")) else {
            return Err(Refusal::Pod("pod has unbound immediate PersistentVolumeClaims".into()));
        };
        let place = claim.place();
        let (promised, made_for) = match self.promises.to(&place) {
            Some(Promise::Volume(name)) => (Some(name.as_str()), None),
            Some(Promise::MadeFor(node)) => (None, Some(node.as_str())),
            None => (None, None),
        };
        let offered = self.free.get(claim.class()).into_iter().flatten();
        let offered = offered.filter(|name| !self.promises.keeps_from(name, &place));
        let offered = offered.filter_map(|name| self.volumes.get("", name));
        let mut fitting: Vec<_> = offered.filter(|volume| volume.suits(claim)).collect();
        // One that is kept for this very claim is the one that it gets.
        let is_kept =
            |volume: &PersistentVolume| volume.is_for(claim) || promised == Some(volume.metadata.name());
        let is_decided = promised.is_some() || fitting.iter().any(|volume| is_kept(volume));
        fitting.retain(|volume| !is_decided || is_kept(volume));
        fitting.sort_by_key(|volume| volume.capacity());
        let is_made = !is_decided && class.provisioner != NO_PROVISIONER;
        let makes = is_made.then(|| Makes {
            allowed: class.allowed_topologies.clone().unwrap_or_default(),
            in_folders: class.provisioner == LOCAL_PATH,
            room: self.capacities.room(claim.class(), &class.provisioner, claim.requested()),
        });
        Ok(OpenClaim {
            selected: claim.annotation(SELECTED_NODE).or(made_for).map(str::to_owned),
            volumes: fitting
                .into_iter()
                .map(|volume| (volume.metadata.name().to_owned(), place_of(volume)))
                .collect(),
            makes,
        })
    }

    /// What has to be written before a pod is bound to a node, and then waited for; nothing if its volumes are all there. Until
    /// [`Storage::release`] nobody else gets what its claims get.
    pub fn promise(&mut self, pod: &Pod, node: &Node) -> Option<Vec<Write>> {
        let need = self.need(pod).ok().filter(|need| !need.open.is_empty())?;
        let chosen = need.choose(node).unwrap_or_default();
        let claims = claims(pod).filter_map(|wanted| self.claims.get(pod.metadata.namespace(), &wanted.name));
        let open: Vec<_> = claims.filter(|claim| claim.volume_name().is_none()).cloned().collect();
        let each = open.iter().zip(&chosen);
        let steps = each.filter_map(|(claim, volume)| self.step(claim, *volume, node)).collect();
        let key = crate::cluster::key(pod);
        for (claim, volume) in open.iter().zip(chosen) {
            let promise = match volume {
                Some(volume) => Promise::Volume(volume.to_owned()),
                None => Promise::MadeFor(node.name().to_owned()),
            };
            self.promises.make(&key, claim.place(), promise);
        }
        Some(steps)
    }

    /// What was promised for a pod is shown by the state, or it gets none of it.
    pub fn release(&mut self, key: &Bytes) -> Hope {
        if self.promises.take_back(key) { Hope::VOLUMES } else { Hope::NONE }
    }

    fn step(&self, claim: &PersistentVolumeClaim, volume: Option<&str>, node: &Node) -> Option<Write> {
        let Some(volume) = volume.and_then(|name| self.volumes.get("", name)) else {
            if claim.annotation(SELECTED_NODE) == Some(node.name()) {
                return None;
            }
            let patch = json!({"metadata": {"annotations": {(SELECTED_NODE): node.name()}}});
            return Some(of_version(claim, patch));
        };
        if volume.claim().is_some() {
            return None;
        }
        let patch = json!({
            "metadata": {"annotations": {(BOUND_BY_CONTROLLER): "yes"}}, "spec": {"claimRef": claim.reference()},
        });
        Some(of_version(volume.as_ref(), patch))
    }
}

impl Need {
    /// What stands against a node because of volumes.
    pub fn against(&self, node: &Node) -> Option<Reason> {
        let reason = |text| Some(Reason::new(text, Hope::NODES | Hope::VOLUMES));
        if !self.fixed.iter().all(|place| is_in(node, Some(place))) {
            return reason("node(s) didn't match PersistentVolume's node affinity");
        }
        match self.choose(node) {
            Ok(_) => None,
            Err(Lack::Volume) => reason("node(s) didn't find available persistent volumes to bind"),
            Err(Lack::Room) => reason("node(s) did not have enough free storage"),
        }
    }

    /// For each open claim the volume that it can have on a node, or nothing where one is made.
    ///
    /// # Errors
    /// [`Lack`] if some claim can have none.
    fn choose(&self, node: &Node) -> Result<Vec<Option<&str>>, Lack> {
        let mut taken: Vec<&str> = Vec::new();
        self.open
            .iter()
            .map(|claim| {
                // While one is being made, it is made where that was begun.
                if let Some(selected) = &claim.selected {
                    return if selected == node.name() { Ok(None) } else { Err(Lack::Volume) };
                }
                let there = |(name, place): &&(String, Option<Arc<NodeSelector>>)| {
                    !taken.contains(&name.as_str()) && is_in(node, place.as_deref())
                };
                if let Some((name, _)) = claim.volumes.iter().find(there) {
                    taken.push(name);
                    return Ok(Some(name.as_str()));
                }
                claim.makes.as_ref().ok_or(Lack::Volume)?.on(node).map(|()| None)
            })
            .collect()
    }
}

/// A claim that a pod uses.
pub(crate) struct Wanted {
    /// Its name.
    pub name: String,
    /// It lives as long as the pod.
    pub is_own: bool,
}

pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Wanted { name: source.claim_name.clone(), is_own: false },
        None => Wanted { name: ephemeral_claim(pod.metadata.name(), &volume.name), is_own: true },
    })
}

fn place(pod: &Pod, claim: &str) -> String {
    format!("{}/{claim}", pod.metadata.namespace())
}

/// Whether a claim without a volume may get this one.
fn is_free(volume: &PersistentVolume) -> bool {
    // One that is kept for a claim by name is Available too.
    volume.phase() == "Available"
}

/// Where a volume is, if it isn't everywhere.
pub(crate) fn place_of(volume: &PersistentVolume) -> Option<Arc<NodeSelector>> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    affinity.required.clone().map(Arc::new)
}

pub(crate) fn is_in(node: &Node, place: Option<&NodeSelector>) -> bool {
    place.is_none_or(|place| objects::selects_node(place, node.name(), node.metadata.labels()))
}

/// Whether a class makes volumes for a node: one of its terms is met, or it has none.
fn is_allowed(terms: &[TopologySelectorTerm], node: &Node) -> bool {
    let is_met = |term: &TopologySelectorTerm| {
        let mut labels = term.match_label_expressions.iter().flatten();
        labels.all(|wanted| {
            node.label(&wanted.key).is_some_and(|label| wanted.values.iter().any(|value| value == label))
        })
    };
    terms.is_empty() || terms.iter().any(is_met)
}

/// A change of the version that was looked at.
fn of_version<T: Kind>(object: &T, mut patch: serde_json::Value) -> Write {
    patch["metadata"]["resourceVersion"] = object.metadata().resource_version().into();
    Write::Merge { subject: TypedRef::of(object), subresource: "", patch }
}
