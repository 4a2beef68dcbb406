//! What the agent mounts for a runtime of others: volumes in memory, and parts of volumes, which the agent looks up beneath the volume and shows at a
//! place of its own, as the kubelet does (`pkg/volume/util/subpath`).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use tokio::net::UnixStream;
use tracing::info_span;

use super::Part;
use super::runtime::{ForeignRuntime, system};
use crate::container::mounting::{Attributes, move_mount, open_tree, set_tree_attributes};
use crate::container::{ConfinedPath, is_mounted, remove_folder, unmount_beneath};
use crate::oci::InMemory;
use crate::runtime::{RunError, Which};

/// How long a runtime may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(10);

impl ForeignRuntime {
    /// Makes the volumes in memory of a pod; fine if they are there.
    ///
    /// # Errors
    /// If one can't be made, or the runtime doesn't see it.
    pub(super) async fn make_memory(&self, uid: &str, volumes: Vec<InMemory>) -> Result<(), RunError> {
        let places = volumes.iter().map(|volume| volume.folder.clone()).collect();
        let make = move || volumes.iter().try_for_each(make_one);
        let made = tasks::blocking(info_span!("make volumes in memory", uid), make).await;
        made.map_err(system)?.map_err(system)?;
        self.check_seen(places).await
    }

    /// Shows the parts of volumes that a container is to mount, and answers where each of these mounts has its source.
    ///
    /// # Errors
    /// If one isn't there, or not beneath its volume, or the runtime doesn't see it.
    pub(super) async fn show_parts(
        &self,
        which: &Which,
        parts: Vec<Part>,
    ) -> Result<Vec<(usize, PathBuf)>, RunError> {
        let folder = self.folders.foreign_parts(&which.uid, &which.container);
        let span = info_span!("show parts of volumes", uid = which.uid, container = which.container);
        let shown = tasks::blocking(span, move || show_all(&folder, &parts)).await;
        let shown = shown.map_err(system)?.map_err(RunError::Config)?;
        self.check_seen(shown.iter().map(|(_, place)| place.clone()).collect()).await?;
        Ok(shown)
    }

    /// Unmounts all that was mounted for a pod, of which nothing runs any more.
    pub(super) async fn unmount(&self, uid: &str) {
        let folder = self.folders.foreign_mounts(uid);
        let span = info_span!("unmount a pod's volumes", uid);
        let unmounted = tasks::blocking(span, move || unmount_beneath(&folder)).await;
        if let Ok(Err(error)) = unmounted {
            tracing::warn!(uid, %error, "what was mounted for a pod stays");
        }
    }

    /// A runtime that has mounts of its own would find what lies beneath, which is something else.
    async fn check_seen(&self, places: Vec<PathBuf>) -> Result<(), RunError> {
        if places.is_empty() {
            return Ok(());
        }
        let endpoint = self.client.endpoint();
        let connected = tokio::time::timeout(PATIENCE, UnixStream::connect(endpoint.socket())).await;
        let runtime = connected.map_err(system)?.and_then(|stream| stream.peer_cred()).map_err(system)?.pid();
        let look = move || {
            // One in another namespace of processes has no number here.
            let is_hidden = |place: &PathBuf| runtime.is_none_or(|pid| pid <= 0 || !sees(pid, place));
            places.into_iter().find(is_hidden)
        };
        match tasks::blocking(info_span!("look what the runtime sees"), look).await.map_err(system)? {
            None => Ok(()),
            Some(place) => Err(system(format!(
                "the containers' runtime at {endpoint} doesn't see what this host mounts at {}: have both see the same mounts, or name a \
                 RuntimeClass with the handler oci",
                place.display()
            ))),
        }
    }
}

/// Whether a process finds at a place what this one finds there.
fn sees(pid: i32, place: &Path) -> bool {
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let there = fs::metadata(root.join(place.strip_prefix("/").unwrap_or(place)));
    let of = |about: fs::Metadata| (about.dev(), about.ino());
    fs::metadata(place).ok().map(of).is_some_and(|here| there.ok().map(of) == Some(here))
}

fn make_one(volume: &InMemory) -> Result<(), String> {
    match is_mounted(&volume.folder) {
        Ok(true) => Ok(()),
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(format!("can't look at {}: {why}", volume.folder.display()))
        }
        _ => volume.mount(),
    }
}

/// Shows parts of volumes in a folder, in which others may show still, of a life that is over.
fn show_all(folder: &Path, parts: &[Part]) -> Result<Vec<(usize, PathBuf)>, String> {
    let clear = || -> io::Result<()> {
        unmount_beneath(folder)?;
        remove_folder(folder)
    };
    clear().map_err(|why| format!("can't clear {}: {why}", folder.display()))?;
    let one = |part: &Part| -> Result<(usize, PathBuf), String> {
        let place = folder.join(part.mount.to_string());
        show(&part.source, &place).map_err(|why| format!("{}: {why}", part.what))?;
        Ok((part.mount, place))
    };
    parts.iter().map(one).collect()
}

/// Shows what is found beneath a volume now at a place that is the agent's own.
fn show(source: &ConfinedPath, place: &Path) -> io::Result<()> {
    let source = source.open()?;
    let kind = SFlag::from_bits_truncate(fstat(&source)?.st_mode) & SFlag::S_IFMT;
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    if kind == SFlag::S_IFDIR {
        fs::create_dir(place)?;
    } else {
        fs::write(place, b"")?;
    }
    let tree = open_tree(source.as_fd(), true)?;
    // Who unmounts it unmounts nothing of the volume's own.
    let propagation = libc::MS_SLAVE;
    set_tree_attributes(tree.as_fd(), true, Attributes { propagation, ..Attributes::default() })?;
    let at = open(place, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    move_mount(tree.as_fd(), at.as_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn part(root: &Path, beneath: &str, mount: usize) -> Part {
        let source = ConfinedPath { root: root.to_owned(), beneath: beneath.into() };
        Part { what: format!("subPath {beneath:?}"), mount, source }
    }

    #[test]
    fn a_part_of_a_volume_shows_as_it_was_found_and_goes_without_the_volume() {
        let above = tempfile::tempdir().unwrap();
        let (volume, folder) = (above.path().join("volume"), above.path().join("parts"));
        fs::create_dir_all(volume.join("a/below")).unwrap();
        fs::write(volume.join("a/file"), "the volume's").unwrap();
        symlink("/etc", volume.join("out")).unwrap();
        let none = None::<&str>;
        // In a mount namespace of one thread, whose mounts are shared as systemd has them: nothing stays mounted.
        let tried = std::thread::spawn(move || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
            mount(Some("tmpfs"), &volume.join("a/below"), Some("tmpfs"), MsFlags::empty(), none)?;
            fs::write(volume.join("a/below/deep"), "mounted there").unwrap();
            let parts = [part(&volume, "a", 0), part(&volume, "a/file", 2)];
            for _ in 0..2 {
                let shown = show_all(&folder, &parts).unwrap();
                assert_eq!(shown, [(0, folder.join("0")), (2, folder.join("2"))]);
            }
            // Whatever becomes of the names.
            fs::rename(volume.join("a/file"), volume.join("a/moved")).unwrap();
            symlink("/etc/passwd", volume.join("a/file")).unwrap();
            assert_eq!(fs::read_to_string(folder.join("2")).unwrap(), "the volume's");
            assert_eq!(fs::read_to_string(folder.join("0/below/deep")).unwrap(), "mounted there");
            let why = show_all(&folder, &[part(&volume, "out", 0)]).unwrap_err();
            assert!(why.contains("leads out of the volume"), "{why}");
            assert!(fs::read_to_string(volume.join("a/below/deep")).is_ok(), "the volume keeps its mounts");
            assert!(!folder.join("0").exists() && !folder.join("2").exists());
            let memory = InMemory { folder: folder.join("m"), size: 1 << 20, group: None };
            for _ in 0..2 {
                make_one(&memory).unwrap();
                fs::write(memory.folder.join("kept"), "").unwrap();
            }
            // Of this very process, whose first thread has other mounts.
            let me = i32::try_from(std::process::id()).unwrap();
            assert!(sees(me, &volume) && !sees(me, &memory.folder));
            unmount_beneath(&folder).unwrap();
            assert!(!memory.folder.join("kept").exists() && !is_mounted(&memory.folder).unwrap());
            Ok(())
        });
        if let Err(why) = tried.join().unwrap() {
            testing::skip("mounts", format_args!("no mount namespace to show parts of volumes in: {why}"));
        }
    }
}
