//! What lies on a disk: of whole file systems, and of the folders of a pod, which are looked through.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::statvfs;

/// How deep folders are looked into: each level holds a file open.
const DEEPEST: usize = 200;
/// How many entries are looked at: a pod that makes more must not keep the others from being looked at.
const MOST: u64 = 1_000_000;
/// What a block is in what the kernel tells of files (stat(2)).
const BLOCK: u64 = 512;

/// A file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    /// Bytes that there are.
    pub capacity: u64,
    /// Bytes that can still be had.
    pub available: u64,
    /// Bytes that are taken.
    pub used: u64,
    /// Likewise inodes.
    pub inodes: u64,
    pub inodes_free: u64,
}

impl FileSystem {
    /// The one that a path lies on.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let about = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(about.fragment_size());
        Ok(FileSystem {
            capacity: bytes(about.blocks()),
            available: bytes(about.blocks_available()),
            used: bytes(about.blocks().saturating_sub(about.blocks_free())),
            inodes: about.files(),
            inodes_free: about.files_free(),
        })
    }
}

/// What folders hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Bytes that they take on the disk.
    pub bytes: u64,
    pub inodes: u64,
}

impl Tree {
    /// All that is in a folder, itself included; nothing if it isn't there. Links are not followed, other file systems not entered,
    /// and a file of several names counts once. What is nested too deep, or too much, isn't seen.
    pub(crate) fn of(folder: &Path) -> Self {
        let Ok(root) = open(folder, FOLDER, Mode::empty()) else { return Tree::default() };
        let Ok(about) = fstat(&root) else { return Tree::default() };
        let mut walk = Walk { device: about.st_dev, seen: HashSet::new(), tree: Tree::default() };
        walk.count(&about);
        walk.enter(root.as_fd(), 0);
        walk.tree
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Tree {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

/// What can be listed: a pod may put a link in its place at any time.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

struct Walk {
    device: libc::dev_t,
    /// Files of several names.
    seen: HashSet<libc::ino_t>,
    tree: Tree,
}

impl Walk {
    fn count(&mut self, about: &libc::stat) {
        let is_folder = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        if !is_folder && about.st_nlink > 1 && !self.seen.insert(about.st_ino) {
            return;
        }
        let blocks = u64::try_from(about.st_blocks).unwrap_or(0);
        self.tree = self.tree.and(Tree { bytes: blocks.saturating_mul(BLOCK), inodes: 1 });
    }

    fn enter(&mut self, folder: BorrowedFd<'_>, depth: usize) {
        let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        for entry in entries.into_iter().flatten().flatten() {
            if self.tree.inodes >= MOST {
                return;
            }
            let name = entry.file_name();
            // What has just gone takes nothing.
            let Ok(about) = fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if about.st_dev != self.device {
                continue;
            }
            self.count(&about);
            let is_folder = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            if is_folder
                && depth < DEEPEST
                && let Ok(inner) = openat(folder, name.as_os_str(), FOLDER, Mode::empty())
            {
                self.enter(inner.as_fd(), depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_folders_hold_is_counted_once_and_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        let empty = Tree::of(&root);
        assert_eq!(empty.inodes, 3);
        fs::write(root.join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::write(outside.join("large"), vec![1; 1_000_000]).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("..", root.join("a/round")).unwrap();
        let one = Tree::of(&root);
        assert_eq!(one.inodes, 6);
        let grown = one.bytes - empty.bytes;
        assert!((100_000..150_000).contains(&grown), "{grown}");
        fs::hard_link(root.join("a/b/file"), root.join("again")).unwrap();
        assert_eq!(Tree::of(&root), one);
        assert_eq!(Tree::of(&folder.path().join("missing")), Tree::default());
        assert_eq!(Tree::of(&root.join("out")), Tree::default(), "a link is none of a pod's folders");
    }

    #[test]
    fn a_file_system_has_room_for_what_it_says() {
        let about = FileSystem::of(Path::new("/")).unwrap();
        assert!(about.capacity > 0 && about.available <= about.capacity && about.used <= about.capacity);
        assert!(FileSystem::of(Path::new("/nowhere")).is_err());
    }
}
