//! A folder whose content belongs to a pod is removed: however deep it is nested, and no link in it is followed. What is mounted in it
//! stays, and with it the folder: a volume that could not be unmounted is not the pod's to empty.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::mount_table::mount_of;

/// How deep folders are looked into: each level costs stack, and two open files.
const DEEPEST: usize = 32;
/// What can be opened in a folder that is removed.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes a folder with all that is in it, or whatever else has its name. Fine if nothing has.
///
/// # Errors
/// If something in it can't be removed, or comes anew meanwhile.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    let root = match open(folder, FOLDER, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return fs::remove_file(folder),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { root, moved: 0 };
    loop {
        let before = removal.moved;
        removal.empty(removal.root.try_clone()?.as_fd(), 0)?;
        if removal.moved == before {
            break;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Opens a folder in a folder, unless something is mounted at it.
fn enter(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(folder, name, how) {
        // Before Linux 5.6, and in sandboxes that don't know it.
        Err(Errno::ENOSYS | Errno::EPERM) => enter_and_compare(folder, name),
        opened => Ok(opened?),
    }
}

/// As [`enter`], on kernels that don't look themselves.
fn enter_and_compare(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let opened = openat(folder, name, FOLDER, Mode::empty())?;
    if mount_of(folder)? == mount_of(opened.as_fd())? { Ok(opened) } else { Err(Errno::EXDEV.into()) }
}

struct Removal {
    root: OwnedFd,
    /// How many folders were moved into the root.
    moved: u64,
}

impl Removal {
    fn empty(&mut self, folder: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
            let name = entry?.file_name();
            let name = name.as_os_str();
            match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(Errno::EISDIR) => {}
                Err(error) => return Err(error.into()),
            }
            if depth == DEEPEST {
                self.move_up(folder, name)?;
                continue;
            }
            // It may be removed twice at once: as its pod ends, and as the pod's object goes.
            match enter(folder, name) {
                Ok(inner) => self.empty(inner.as_fd(), depth + 1)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            match unlinkat(folder, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Moves a folder into the root: the next round removes it from there.
    fn move_up(&mut self, from: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            match renameat(from, name, &self.root, format!(".moved-{}", self.moved).as_str()) {
                Ok(()) => return Ok(()),
                // Something of the pod's own has that name.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn folders_nested_without_end_go() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("v");
        fs::create_dir(&root).unwrap();
        fs::write(root.join(".moved-1"), "its own").unwrap();
        let mut deepest = open(&root, FOLDER, Mode::empty()).unwrap();
        for _ in 0..5000 {
            nix::sys::stat::mkdirat(&deepest, "d", Mode::S_IRWXU).unwrap();
            deepest = openat(&deepest, "d", FOLDER, Mode::empty()).unwrap();
        }
        remove_folder(&root).unwrap();
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
        remove_folder(&root).unwrap();
    }

    #[test]
    fn no_link_is_followed() {
        let above = tempfile::tempdir().unwrap();
        let (root, outside) = (above.path().join("v"), above.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("kept"), root.join("a/b/link")).unwrap();
        symlink("nowhere", root.join("a/dangling")).unwrap();
        let link = above.path().join("link");
        symlink(&outside, &link).unwrap();
        remove_folder(&root).unwrap();
        remove_folder(&link).unwrap();
        assert!(!root.exists() && fs::symlink_metadata(link).is_err() && outside.join("kept").exists());
    }

    #[test]
    fn what_is_mounted_is_not_entered() {
        let above = tempfile::tempdir().unwrap();
        let (root, volume) = (above.path().join("v"), above.path().join("volume"));
        fs::create_dir_all(root.join("plain")).unwrap();
        fs::create_dir_all(root.join("mounted")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("data"), "").unwrap();
        // In a mount namespace of one thread: nothing stays mounted.
        let looked = std::thread::spawn(move || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            // Of the same file system, and so of the same device.
            mount(Some(&volume), &root.join("mounted"), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            let folder = open(&root, FOLDER, Mode::empty())?;
            for way in [enter, enter_and_compare] {
                way(folder.as_fd(), OsStr::new("plain")).unwrap();
                let refused = way(folder.as_fd(), OsStr::new("mounted")).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EXDEV));
            }
            let removed = remove_folder(&root).unwrap_err();
            assert_eq!(removed.raw_os_error(), Some(libc::EXDEV));
            assert!(volume.join("data").exists());
            Ok(())
        });
        if let Err(why) = looked.join().unwrap() {
            testing::skip("mounts", format_args!("no mount namespace to try removal in: {why}"));
        }
    }
}
