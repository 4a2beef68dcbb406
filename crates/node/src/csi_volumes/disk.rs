//! What drivers may have mounted, as the host's disk knows it: in the kubelet's folders, and in the form of its `vol_data.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::book::{Book, Place, Staged, VolumeId, digest};
use crate::container::{CSI_VOLUMES, csi_mount};
use crate::pods::Folders;

const RECORD: &str = "vol_data.json";
/// Where the record lies until it is whole.
const UNFINISHED: &str = ".vol_data.json";
const STAGED: &str = "globalmount";

/// `volData` of `pkg/volume/csi`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    #[serde(rename = "specVolID")]
    pub volume: String,
    pub volume_handle: String,
    pub driver_name: String,
    pub node_name: String,
    /// Empty for a volume that isn't attached.
    #[serde(rename = "attachmentID")]
    pub attachment: String,
    pub volume_lifecycle_mode: String,
}

impl Record {
    fn id(&self) -> VolumeId {
        VolumeId { driver: self.driver_name.clone(), handle: self.volume_handle.clone() }
    }
}

/// The folder of what is known of a pod's volume.
fn place_folder(folders: &Folders, place: &Place) -> PathBuf {
    folders.pod(&place.uid).join("volumes").join(CSI_VOLUMES).join(&place.name)
}

/// Where a pod's volume is published.
pub(super) fn target(folders: &Folders, place: &Place) -> PathBuf {
    folders.pod(&place.uid).join("volumes").join(csi_mount(&place.name))
}

fn all_staged(folders: &Folders) -> PathBuf {
    folders.plugins().join("kubernetes.io/csi")
}

/// Where a volume is staged (`makeDeviceMountPath`).
pub(super) fn staged(folders: &Folders, id: &VolumeId) -> PathBuf {
    all_staged(folders).join(&id.driver).join(digest(&id.handle)).join(STAGED)
}

/// Records that a pod's volume may be published, and makes the folder for it.
pub(super) fn record_use(folders: &Folders, place: &Place, record: &Record) -> io::Result<()> {
    write(&place_folder(folders, place), record)
}

/// Records that a volume may be staged, and makes the place for it.
pub(super) fn record_staged(folders: &Folders, id: &VolumeId, record: &Record) -> io::Result<()> {
    let place = staged(folders, id);
    write(place.parent().ok_or(io::ErrorKind::InvalidInput)?, record)?;
    fs::create_dir_all(place)
}

fn write(folder: &Path, record: &Record) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(UNFINISHED);
    fs::write(&unfinished, serde_json::to_vec(record)?)?;
    fs::rename(unfinished, folder.join(RECORD))
}

/// Forgets a pod's volume that was unpublished. Nothing but an empty folder is removed: where something is still mounted, or was left,
/// this fails.
pub(super) fn forget_use(folders: &Folders, place: &Place) -> io::Result<()> {
    forget(&target(folders, place))
}

/// Forgets a volume that was unstaged, likewise.
pub(super) fn forget_staged(folders: &Folders, id: &VolumeId) -> io::Result<()> {
    forget(&staged(folders, id))
}

fn forget(mount: &Path) -> io::Result<()> {
    let fine = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    let folder = mount.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fine(fs::remove_dir(mount))?;
    fine(fs::remove_file(folder.join(UNFINISHED)))?;
    // Last of all: as long as it is there, the work isn't done.
    fine(fs::remove_file(folder.join(RECORD)))?;
    fine(fs::remove_dir(folder))
}

/// Reads all records. What can't be read was never whole, and its driver never asked.
pub(super) fn load(folders: &Folders, book: &mut Book) {
    for pod in entries(&folders.pods()) {
        for folder in entries(&pod.join("volumes").join(CSI_VOLUMES)) {
            let (Some(uid), Some(name), Some(record)) = (name(&pod), name(&folder), read(&folder)) else {
                continue;
            };
            let (place, id) = (Place { uid, name }, record.id());
            book.begin(place.clone(), &id, !record.attachment.is_empty());
            if let Some(known) = book.uses.get_mut(&place) {
                known.is_recorded = true;
            }
        }
    }
    for driver in entries(&all_staged(folders)) {
        for folder in entries(&driver) {
            if let Some(record) = read(&folder) {
                let staged = Staged { is_attached: !record.attachment.is_empty(), is_done: false };
                book.staged.insert(record.id(), staged);
            }
        }
    }
}

fn read(folder: &Path) -> Option<Record> {
    let text = fs::read(folder.join(RECORD)).ok()?;
    let record: Result<Record, _> = serde_json::from_slice(&text);
    record
        .inspect_err(
            |error| tracing::warn!(folder = %folder.display(), %error, "a volume's record says nothing"),
        )
        .ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_former_life_may_have_mounted_is_found_again() {
        let data = tempfile::tempdir().unwrap();
        let folders = Folders::new(data.path().to_owned());
        let id = VolumeId { driver: "d.example.org".into(), handle: "h".into() };
        let place = Place { uid: "u".into(), name: "pv".into() };
        let record = Record {
            volume: "pv".into(),
            volume_handle: "h".into(),
            driver_name: "d.example.org".into(),
            node_name: "n1".into(),
            attachment: id.attachment("n1"),
            volume_lifecycle_mode: "Persistent".into(),
        };
        record_staged(&folders, &id, &record).unwrap();
        record_use(&folders, &place, &record).unwrap();
        // printf '%s' h | sha256sum
        let sum = "aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123";
        let global = format!("plugins/kubernetes.io/csi/d.example.org/{sum}/globalmount");
        assert_eq!(staged(&folders, &id), data.path().join(global));
        assert!(staged(&folders, &id).is_dir(), "the driver finds its place");
        assert!(!target(&folders, &place).exists(), "the driver makes the target itself");
        assert_eq!(target(&folders, &place), data.path().join("pods/u/volumes/kubernetes.io~csi/pv/mount"));
        // One that was being written when the machine stopped.
        fs::create_dir_all(data.path().join("pods/u/volumes/kubernetes.io~csi/half")).unwrap();
        fs::write(data.path().join("pods/u/volumes/kubernetes.io~csi/half/.vol_data.json"), "{").unwrap();

        let mut book = Book::default();
        load(&folders, &mut book);
        assert_eq!(book.uses.len(), 1);
        let found = &book.uses[&place];
        assert_eq!((&found.id, found.is_attached, found.is_recorded), (&id, true, true));
        assert!(!found.is_done, "its driver is asked again");
        assert_eq!(book.staged[&id], Staged { is_attached: true, is_done: false });

        // What is in a volume is never removed here.
        fs::create_dir_all(target(&folders, &place).join("data")).unwrap();
        assert!(forget_use(&folders, &place).is_err());
        assert!(place_folder(&folders, &place).join(RECORD).exists());
        fs::remove_dir(target(&folders, &place).join("data")).unwrap();
        forget_use(&folders, &place).unwrap();
        forget_use(&folders, &place).unwrap();
        forget_staged(&folders, &id).unwrap();
        let mut book = Book::default();
        load(&folders, &mut book);
        assert!(book.uses.is_empty() && book.staged.is_empty());
    }
}
