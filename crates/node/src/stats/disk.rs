//! What lies on a disk: of whole file systems, and of the folders of a pod, which are looked through.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::statvfs;

/// How deep folders are looked into: each level holds a file open.
pub(crate) const DEEPEST: usize = 200;
/// How many names are looked at of what one pod has: a pod that makes more must not keep the others from being looked at.
pub(crate) const MOST: u64 = 1_000_000;
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
    /// Whether there is more, that wasn't seen: nested too deep, too much, or too slow to look at.
    pub is_partial: bool,
}

/// How much is looked at of what one pod has, in all of its folders together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// How many names.
    left: u64,
    /// Whether the time is over.
    stop: Arc<AtomicBool>,
}

impl Budget {
    /// The usual one, until `stop` is true.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        Budget { left: MOST, stop }
    }

    /// Whether one more name is looked at.
    fn take(&mut self) -> bool {
        let more = self.left > 0 && !self.stop.load(Ordering::Relaxed);
        self.left = self.left.saturating_sub(1);
        more
    }
}

impl Tree {
    /// All that is in a folder, itself included; nothing if it isn't there. Links are not followed, other file systems not entered,
    /// and a file of several names counts once. What is nested too deep, or beyond the budget, isn't seen.
    pub(crate) fn of(folder: &Path, budget: &mut Budget) -> Self {
        let Ok(root) = open(folder, FOLDER, Mode::empty()) else { return Tree::default() };
        let Ok(about) = fstat(&root) else { return Tree::default() };
        let mut walk = Walk { device: about.st_dev, seen: HashSet::new(), tree: Tree::default(), budget };
        walk.count(&about);
        walk.enter(root.as_fd(), 0);
        walk.tree
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Tree {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
            is_partial: self.is_partial || other.is_partial,
        }
    }
}

/// What can be listed: a pod may put a link in its place at any time.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

struct Walk<'a> {
    device: libc::dev_t,
    /// Files of several names.
    seen: HashSet<libc::ino_t>,
    tree: Tree,
    budget: &'a mut Budget,
}

impl Walk<'_> {
    fn count(&mut self, about: &libc::stat) {
        let is_folder = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        if !is_folder && about.st_nlink > 1 && !self.seen.insert(about.st_ino) {
            return;
        }
        let blocks = u64::try_from(about.st_blocks).unwrap_or(0);
        self.tree = self.tree.and(Tree { bytes: blocks.saturating_mul(BLOCK), inodes: 1, is_partial: false });
    }

    fn enter(&mut self, folder: BorrowedFd<'_>, depth: usize) {
        let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        for entry in entries.into_iter().flatten().flatten() {
            // Names, not files: one file may have as many as a pod makes.
            if !self.budget.take() {
                self.tree.is_partial = true;
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
            if is_folder && depth == DEEPEST {
                self.tree.is_partial = true;
            } else if is_folder && let Ok(inner) = openat(folder, name.as_os_str(), FOLDER, Mode::empty()) {
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
        let of = |folder: &Path| Tree::of(folder, &mut Budget::new(Arc::default()));
        let empty = of(&root);
        assert_eq!(empty.inodes, 3);
        fs::write(root.join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::write(outside.join("large"), vec![1; 1_000_000]).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("..", root.join("a/round")).unwrap();
        let one = of(&root);
        assert_eq!(one.inodes, 6);
        let grown = one.bytes - empty.bytes;
        assert!((100_000..150_000).contains(&grown), "{grown}");
        fs::hard_link(root.join("a/b/file"), root.join("again")).unwrap();
        assert_eq!(of(&root), one);
        assert_eq!(of(&folder.path().join("missing")), Tree::default());
        assert_eq!(of(&root.join("out")), Tree::default(), "a link is none of a pod's folders");
    }

    #[test]
    fn a_budget_is_all_folders_together_and_counts_names() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for root in [&one, &other] {
            fs::create_dir(root).unwrap();
            fs::write(root.join("0"), "").unwrap();
            (1..10).for_each(|n| fs::hard_link(root.join("0"), root.join(n.to_string())).unwrap());
        }
        let both = |left: u64, stop: bool| {
            let mut budget = Budget { left, stop: Arc::new(AtomicBool::new(stop)) };
            (Tree::of(&one, &mut budget), Tree::of(&other, &mut budget))
        };
        let (whole, again) = both(20, false);
        assert_eq!((whole.inodes, whole.is_partial, again), (2, false, whole));
        assert!(both(9, false).0.is_partial, "ten names of one file");
        let (first, second) = both(15, false);
        assert!(!first.is_partial && second.is_partial && first.and(second).is_partial);
        assert!(both(20, true).0.is_partial, "its time is over");
    }

    #[test]
    fn what_is_nested_too_deep_is_known_not_to_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let deep = |levels: usize| {
            let root = folder.path().join(levels.to_string());
            fs::create_dir(&root).unwrap();
            let mut inner = open(&root, FOLDER, Mode::empty()).unwrap();
            for _ in 0..levels {
                nix::sys::stat::mkdirat(&inner, "d", Mode::S_IRWXU).unwrap();
                inner = openat(&inner, "d", FOLDER, Mode::empty()).unwrap();
            }
            Tree::of(&root, &mut Budget::new(Arc::default())).is_partial
        };
        assert_eq!((deep(DEEPEST), deep(DEEPEST + 1)), (false, true));
    }

    #[test]
    fn a_file_system_has_room_for_what_it_says() {
        let about = FileSystem::of(Path::new("/")).unwrap();
        assert!(about.capacity > 0 && about.available <= about.capacity && about.used <= about.capacity);
        assert!(FileSystem::of(Path::new("/nowhere")).is_err());
    }
}
