//! How many volumes of a CSI driver can be attached to a node.
//!
//! Follows `plugins/nodevolumelimits` upstream, for volumes of the source `csi`: those of types that came before CSI have no
//! limits here. A volume is known by its claim, which is the only one that has it. What is attached counts whether pods use it or a
//! VolumeAttachment says so: one that a pod has left takes room until it is detached.

use std::collections::{BTreeMap, BTreeSet};

use objects::{Metadata, NoAnnotations};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::unschedulable::Hope;

/// What a node's drivers say of it. Fields have the API's names and forms (storage.k8s.io/v1 CSINode).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CsiNode {
    #[serde(deserialize_with = "objects::metadata::<_, NoAnnotations>")]
    pub metadata: Metadata,
    spec: CsiNodeSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct CsiNodeSpec {
    drivers: Option<Vec<Driver>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Driver {
    name: String,
    allocatable: Option<Allocatable>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Allocatable {
    count: Option<i32>,
}

objects::thin_kind!(CsiNode, k8s_openapi::api::storage::v1::CSINode);

/// That a volume is attached to a node, or is to be. Fields have the API's names and forms (storage.k8s.io/v1 VolumeAttachment).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeAttachment {
    #[serde(deserialize_with = "objects::metadata::<_, NoAnnotations>")]
    pub metadata: Metadata,
    pub spec: VolumeAttachmentSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct VolumeAttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: AttachedSource,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AttachedSource {
    pub persistent_volume_name: Option<String>,
}

objects::thin_kind!(VolumeAttachment, k8s_openapi::api::storage::v1::VolumeAttachment);

/// What all VolumeAttachments say: by the name of each, the node, and the volume.
#[derive(Debug, Default)]
pub(crate) struct VolumeAttachments {
    by_name: BTreeMap<String, (String, Attached)>,
    /// How many there are of each claim's volume.
    of_claim: BTreeMap<String, usize>,
}

impl VolumeAttachments {
    /// Whether a claim's volume has one.
    pub fn has(&self, claim: &str) -> bool {
        self.of_claim.contains_key(claim)
    }

    /// What one says now, and what it said before.
    fn set(&mut self, name: &str, new: Option<(String, Attached)>) -> Option<(String, Attached)> {
        if let Some((_, attached)) = &new {
            *self.of_claim.entry(attached.claim.clone()).or_default() += 1;
        }
        let old = match new {
            Some(new) => self.by_name.insert(name.to_owned(), new),
            None => self.by_name.remove(name),
        };
        if let Some((_, attached)) = &old
            && let Some(count) = self.of_claim.get_mut(&attached.claim)
        {
            *count -= 1;
            if *count == 0 {
                self.of_claim.remove(&attached.claim);
            }
        }
        old
    }
}

impl Cluster {
    /// What a VolumeAttachment says; nothing if it is gone.
    pub(crate) fn set_attachment(&mut self, name: &str, spec: Option<&VolumeAttachmentSpec>) -> Hope {
        let new = spec.and_then(|spec| Some((spec.node_name.clone(), self.storage.attachment(spec)?)));
        let old = self.storage.attachments.set(name, new.clone());
        if old == new {
            return Hope::NONE;
        }
        if let Some((node, attached)) = new {
            let at = self.host(&node);
            self.hosts[at].attachments.add(&[attached]);
            self.touch(at);
        }
        let Some((node, attached)) = old else { return Hope::NONE };
        let at = self.host(&node);
        self.hosts[at].attachments.remove(&[attached]);
        self.touch(at);
        self.drop_if_empty(at);
        Hope::ROOM
    }
}

/// How many volumes of each driver can be attached; of one that isn't there, any number.
pub(crate) type Limits = BTreeMap<String, usize>;

impl CsiNode {
    /// How many volumes of each driver can be attached.
    pub fn limits(&self) -> Limits {
        let drivers = self.spec.drivers.iter().flatten();
        let limit = |driver: &Driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.clone(), usize::try_from(count).unwrap_or(0)))
        };
        drivers.filter_map(limit).collect()
    }
}

/// A volume that is attached to the node of a pod that uses it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attached {
    pub driver: String,
    /// Its claim, `NAMESPACE/NAME`.
    pub claim: String,
}

/// Volumes of one driver that a pod brings to its node. For pods that are alike it is the same, although each has claims of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Brought {
    /// How many of them no placed pod uses, and are attached nowhere.
    pub new: usize,
    /// The claims of the others, which may be attached there already.
    pub shared: BTreeSet<String>,
}

/// What is attached to a node, and what can be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachments {
    pub limits: Limits,
    /// By driver and claim, how many pods use the volume; a VolumeAttachment counts like one.
    volumes: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Attachments {
    /// Whether there is nothing to know.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.volumes.is_empty()
    }

    /// A pod with these comes.
    pub fn add(&mut self, volumes: &[Attached]) {
        for Attached { driver, claim } in volumes {
            *self.volumes.entry(driver.clone()).or_default().entry(claim.clone()).or_default() += 1;
        }
    }

    /// A pod with these goes.
    pub fn remove(&mut self, volumes: &[Attached]) {
        for Attached { driver, claim } in volumes {
            let Some(claims) = self.volumes.get_mut(driver) else { continue };
            if let Some(pods) = claims.get_mut(claim) {
                *pods -= 1;
                if *pods == 0 {
                    claims.remove(claim);
                }
            }
            if claims.is_empty() {
                self.volumes.remove(driver);
            }
        }
    }

    /// Whether a pod brings more than can be attached; volumes that are promised to other pods count.
    pub fn are_exceeded_by<'a>(
        &self,
        brought: &BTreeMap<String, Brought>,
        promised: impl Iterator<Item = &'a Attached> + Clone,
    ) -> bool {
        brought.iter().any(|(driver, brought)| {
            let Some(limit) = self.limits.get(driver) else { return false };
            let there = self.volumes.get(driver);
            let is_there = |claim: &String| there.is_some_and(|claims| claims.contains_key(claim));
            let new = brought.new + brought.shared.iter().filter(|claim| !is_there(claim)).count();
            let promised = promised.clone().filter(|volume| volume.driver == *driver);
            let promised: BTreeSet<_> =
                promised.map(|volume| &volume.claim).filter(|claim| !is_there(claim)).collect();
            let taken = there.map_or(0, BTreeMap::len) + promised.len();
            new > 0 && taken + new > *limit
        })
    }
}
