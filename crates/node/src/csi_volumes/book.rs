//! Which drivers there are, and which pods use which volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use csi::Driver;
use tokio::sync::Mutex;

/// A volume, as its driver knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VolumeId {
    pub driver: String,
    pub handle: String,
}

impl VolumeId {
    /// Its name in a Node's status (`GetVolumeName` and `GetUniqueVolumeName`).
    pub fn unique(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver, self.handle)
    }

    /// The name of its VolumeAttachment to a node (`getAttachmentName`).
    pub fn attachment(&self, node: &str) -> String {
        format!("csi-{}", digest(&format!("{}{}{node}", self.handle, self.driver)))
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Where a pod has a volume: the pod's uid, and the volume's name as a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub uid: String,
    pub name: String,
}

/// A pod's use of a volume, from before it is mounted until it is unmounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub id: VolumeId,
    /// Whether it had to be attached to the host first.
    pub is_attached: bool,
    /// Whether its driver may have mounted it.
    pub is_recorded: bool,
    /// Whether it has, in this life of the agent, and wasn't asked to unmount it since.
    pub is_done: bool,
    /// After how many failures in a row, and not before when, its driver is asked again.
    pub failures: u32,
    pub not_before: Duration,
    /// When it was published last.
    pub published: Duration,
}

/// A volume that may be staged for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staged {
    /// Whether it had to be attached to the host first.
    pub is_attached: bool,
    /// Whether it is, by its driver's word in this life of the agent, and the driver wasn't asked to unstage it since.
    pub is_done: bool,
}

#[derive(Default)]
pub(super) struct Book {
    pub drivers: BTreeMap<String, Driver>,
    /// What drivers call this node, once one has said anything.
    pub ids: Option<BTreeMap<String, String>>,
    pub uses: BTreeMap<Place, Use>,
    /// What a driver may have staged.
    pub staged: BTreeMap<VolumeId, Staged>,
    turns: BTreeMap<VolumeId, Arc<Mutex<()>>>,
}

impl Book {
    /// A pod begins to use a volume, or goes on.
    pub fn begin(&mut self, place: Place, id: &VolumeId, is_attached: bool) {
        self.uses.entry(place).or_insert_with(|| Use {
            id: id.clone(),
            is_attached,
            is_recorded: false,
            is_done: false,
            failures: 0,
            not_before: Duration::ZERO,
            published: Duration::ZERO,
        });
    }

    /// The uses of one pod.
    pub fn of_pod(&self, uid: &str) -> Vec<(Place, Use)> {
        let uses = self.uses.iter().filter(|(place, _)| place.uid == uid);
        uses.map(|(place, each)| (place.clone(), each.clone())).collect()
    }

    pub fn is_used(&self, id: &VolumeId) -> bool {
        self.uses.values().any(|each| each.id == *id)
    }

    /// What is staged and used by no pod.
    pub fn unused(&self) -> Vec<VolumeId> {
        self.staged.keys().filter(|id| !self.is_used(id)).cloned().collect()
    }

    /// What the Node says that it uses: the attached ones, from before they are mounted until after they are unmounted.
    pub fn in_use(&self) -> BTreeSet<String> {
        let used = self.uses.values().filter(|each| each.is_attached).map(|each| &each.id);
        let staged = self.staged.iter().filter(|(_, staged)| staged.is_attached).map(|(id, _)| id);
        used.chain(staged).map(VolumeId::unique).collect()
    }

    /// Who holds it may ask the driver about the volume.
    pub fn turn(&mut self, id: &VolumeId) -> Arc<Mutex<()>> {
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        self.turns.entry(id.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(handle: &str) -> VolumeId {
        VolumeId { driver: "d".into(), handle: handle.into() }
    }

    fn place(uid: &str, name: &str) -> Place {
        Place { uid: uid.into(), name: name.into() }
    }

    #[test]
    fn a_volume_is_in_use_until_nobody_has_it_and_it_is_staged_no_more() {
        let mut book = Book::default();
        book.begin(place("u1", "pv"), &id("1"), true);
        book.begin(place("u2", "pv"), &id("1"), true);
        book.begin(place("u2", "plain"), &id("2"), false);
        book.staged.insert(id("1"), Staged { is_attached: true, is_done: true });
        let one = BTreeSet::from(["kubernetes.io/csi/d^1".to_owned()]);
        assert_eq!(book.in_use(), one, "what isn't attached is nobody else's business");
        assert!(book.unused().is_empty());
        assert_eq!(book.of_pod("u2").len(), 2);
        book.uses.clear();
        assert_eq!((book.unused(), book.in_use()), (vec![id("1")], one));
        book.staged.clear();
        assert!(book.in_use().is_empty());
    }

    #[test]
    fn calls_about_one_volume_take_turns() {
        let mut book = Book::default();
        let held = book.turn(&id("1"));
        assert!(Arc::ptr_eq(&held, &book.turn(&id("1"))));
        assert!(!Arc::ptr_eq(&held, &book.turn(&id("2"))));
        book.turn(&id("1"));
        assert_eq!(book.turns.len(), 1, "those that nobody waits for are forgotten");
    }

    #[test]
    fn names_are_upstreams() {
        // printf '%s' 1dn1 | sha256sum
        let digest = "b6112c286896f8132fd4e48b5904dbd9394c729b2e6c1a61582fdd1227f02a97";
        assert_eq!(id("1").attachment("n1"), format!("csi-{digest}"));
    }
}
