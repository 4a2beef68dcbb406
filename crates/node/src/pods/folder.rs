//! Where on the host's disk a pod's things lie.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::container::{remove_folder, unmount_beneath};
use crate::oci::WRITTEN;
use crate::pod::uid;

/// Where in a pod's folder the marks of its images lie.
const IMAGES: &str = "images";
/// Where in a pod's folder the agent mounts something for a runtime of others.
const FOREIGN_MOUNTS: &str = "foreign-mounts";

/// The agent's folders: `pods/UID` with `work`, `tmp`, `volumes` and `scratch`; `logs/NAMESPACE_NAME_UID`;
/// `volumes/NAME`; `plugins_registry`, `plugins`; `manifest-copies`, `static-pods`.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    data: PathBuf,
    volumes: PathBuf,
}

impl Folders {
    pub(crate) fn new(data: PathBuf) -> Self {
        Folders { volumes: data.join("volumes"), data }
    }

    /// The book of addresses.
    pub(crate) fn addresses(&self) -> PathBuf {
        self.data.join("addresses.json")
    }

    /// Which runtime of others has pods of this host.
    pub(crate) fn foreign(&self) -> PathBuf {
        self.data.join("runtime.json")
    }

    /// Copies of the host's manifests, as they were when they were valid last.
    pub(crate) fn manifest_copies(&self) -> PathBuf {
        self.data.join("manifest-copies")
    }

    /// What is known of the pods of these.
    pub(crate) fn static_pods(&self) -> PathBuf {
        self.data.join("static-pods")
    }

    /// The folder of all pods' folders.
    pub(crate) fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// The folder of the volumes of claims, each with the volume's name: they outlive their pods.
    pub(crate) fn volumes(&self) -> &Path {
        &self.volumes
    }

    /// The folder in which storage drivers have their sockets for registering.
    pub(crate) fn plugins_registry(&self) -> PathBuf {
        self.data.join("plugins_registry")
    }

    /// The folder in which what storage drivers stage lies, and their own sockets usually.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.data.join("plugins")
    }

    /// The pod's own folder.
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// What is mounted over while a container is made.
    pub(crate) fn scratch(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("scratch").join(container)
    }

    /// What the host gave a pod that was resized.
    pub(crate) fn allocation(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("allocation.json")
    }

    /// The folder that its processes start in.
    pub(crate) fn work(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("work")
    }

    /// Its folder for passing things.
    pub(crate) fn tmp(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("tmp")
    }

    fn own_message(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("messages").join(container)
    }

    /// Not among the others: what has one of those mounted, and no shim, is killed as a leftover (`end_leftovers`).
    fn foreign_message(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("foreign-messages").join(container)
    }

    /// Where a container's last words are read.
    pub(crate) fn message(&self, uid: &str, container: &str) -> PathBuf {
        let foreign = self.foreign_message(uid, container);
        if foreign.exists() { foreign } else { self.own_message(uid, container) }
    }

    /// Makes an empty file for a container's last words, which the container may write as any user. It is a new file:
    /// its last life may still have the old one open.
    pub(crate) fn make_message(&self, uid: &str, container: &str, is_foreign: bool) -> io::Result<PathBuf> {
        let (own, foreign) = (self.own_message(uid, container), self.foreign_message(uid, container));
        for former in [&own, &foreign] {
            match fs::remove_file(former) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let path = if is_foreign { foreign } else { own };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// What the agent mounts for a pod in a runtime of others: nothing else is mounted there.
    pub(crate) fn foreign_mounts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join(FOREIGN_MOUNTS)
    }

    /// Its volume in memory of that name.
    pub(crate) fn foreign_memory(&self, uid: &str, volume: &str) -> PathBuf {
        self.foreign_mounts(uid).join("memory").join(volume)
    }

    /// Where the parts of volumes (`subPath`) show that a container of it mounts.
    pub(crate) fn foreign_parts(&self, uid: &str, container: &str) -> PathBuf {
        self.foreign_mounts(uid).join("parts").join(container)
    }

    /// The folder of a container's logs.
    pub(crate) fn logs(&self, pod: &Pod, container: &str) -> PathBuf {
        self.pod_logs(pod).join(container)
    }

    /// The folder of a pod's logs.
    pub(crate) fn pod_logs(&self, pod: &Pod) -> PathBuf {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (of(&pod.metadata.namespace), of(&pod.metadata.name));
        self.data.join("logs").join(format!("{namespace}_{name}_{}", uid(pod)))
    }

    /// What a container with a root of its own is made of, and writes.
    pub(crate) fn bundle(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("bundles").join(container)
    }

    /// What a container with a root of its own wrote into it in this life.
    pub(crate) fn written(&self, uid: &str, container: &str) -> PathBuf {
        self.bundle(uid, container).join(WRITTEN)
    }

    /// Where a container finds the image that is a volume.
    pub(crate) fn image_volume(&self, uid: &str, container: &str, volume: &str) -> PathBuf {
        self.bundle(uid, container).join("volumes").join(volume)
    }

    /// As [`Folders::image_mark`], of a volume. No container has a name with a dot.
    pub(crate) fn volume_mark(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod(uid).join(IMAGES).join(format!("{volume}.volume"))
    }

    /// The file that says which image a container has, for as long as its pod is there.
    pub(crate) fn image_mark(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join(IMAGES).join(container)
    }

    /// What all marks say. One that was being written when the machine stopped may say anything.
    pub(crate) fn images_in_use(&self) -> io::Result<BTreeSet<String>> {
        let mut digests = BTreeSet::new();
        for pod in entries(&self.pods())? {
            for mark in entries(&pod.join(IMAGES))? {
                match fs::read_to_string(&mark) {
                    Ok(digest) => _ = digests.insert(digest),
                    // Its pod has just gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(digests)
    }

    /// The host's profiles of system calls (`seccompProfile.localhostProfile`).
    pub(crate) fn seccomp(&self) -> PathBuf {
        self.data.join("seccomp")
    }

    /// Makes a pod's folders, its user's where it has one.
    pub(crate) fn make(&self, uid: &str, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        for folder in [self.work(uid), self.tmp(uid)] {
            fs::create_dir_all(&folder)?;
            if user.is_some() || group.is_some() {
                std::os::unix::fs::chown(&folder, user, group)?;
            }
        }
        fs::set_permissions(self.tmp(uid), fs::Permissions::from_mode(0o1777))
    }

    /// Removes a pod's logs.
    pub(crate) fn remove_logs(&self, pod: &Pod) {
        remove(&self.pod_logs(pod));
    }

    /// Removes all that a pod left but its logs, and answers whether nothing is left.
    pub(crate) fn remove_pod(&self, uid: &str) -> bool {
        remove_one(&self.pod(uid))
    }

    /// Removes what pods left that are not among these uids.
    pub(crate) fn keep_only(&self, uids: &BTreeSet<String>) {
        let entries = |name: &str| fs::read_dir(self.data.join(name)).into_iter().flatten().flatten();
        for entry in entries("pods") {
            if entry.file_name().to_str().is_none_or(|name| !uids.contains(name)) {
                remove_one(&entry.path());
            }
        }
        for entry in entries("logs") {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.rsplit('_').next());
            if uid.is_none_or(|uid| !uids.contains(uid)) {
                remove(&entry.path());
            }
        }
    }
}

/// What lies in a folder; nothing if it isn't there.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Removes the folder of a pod.
fn remove_one(pod: &Path) -> bool {
    if let Err(error) = unmount_beneath(&pod.join(FOREIGN_MOUNTS)) {
        tracing::warn!(pod = %pod.display(), %error, "can't unmount what a pod left");
    }
    remove(pod)
}

fn remove(folder: &Path) -> bool {
    let removed = remove_folder(folder);
    if let Err(error) = &removed {
        tracing::warn!(folder = %folder.display(), %error, "can't remove what a pod left");
    }
    removed.is_ok()
}
