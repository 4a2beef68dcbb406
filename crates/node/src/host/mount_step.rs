//! One step of a plan of mounts, carried out between fork and exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd;

use serde::{Deserialize, Serialize};

use super::beneath::{Spot, owned};
use super::mounts::Access;

// Of linux/mount.h; the libc crate has them for some systems only.
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_int = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// One system call of the plan, or a few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Makes a folder (fine if it is there).
    Folder(CString),
    /// Makes an empty file (fine if it is there).
    File(CString),
    /// Makes a symbolic link: (content, path).
    Link(CString, CString),
    /// Mounts an empty memory file system.
    Memory(CString),
    /// Shows a path with all mounted below it elsewhere: (source, target).
    Show(Spot, Spot, Access),
    /// Makes a shown path read-only, keeping the flags that its mount has.
    ReadOnly(CString, libc::c_ulong),
    /// Makes a mount and all below it read-only.
    ReadOnlyBelow(CString),
    /// What shows a folder above this mount shows it without.
    NotShown(CString),
    /// Takes a mount away.
    Hide(CString),
    /// Changes the root folder.
    Root(CString),
}

impl Step {
    /// Shows one of the host's paths at one of ours.
    pub(super) fn show(source: CString, target: CString) -> Self {
        Step::Show(Spot::trusted(source), Spot::trusted(target), Access::Full)
    }

    /// Carries the step out. Makes nothing but system calls: it runs between fork and exec.
    pub(super) fn run(&self) -> io::Result<()> {
        let null = std::ptr::null();
        match self {
            // SAFETY: the path is a string that lives through the call.
            Step::Folder(path) => exists_is_fine(unsafe { libc::mkdir(path.as_ptr(), 0o755) }),
            Step::File(path) => {
                let flags = libc::O_CREAT | libc::O_CLOEXEC | libc::O_RDONLY | libc::O_NONBLOCK;
                // SAFETY: the path is a string that lives through the call.
                owned(unsafe { libc::open(path.as_ptr(), flags, 0o644) }.into()).map(drop)
            }
            Step::Link(to, path) => {
                // SAFETY: both strings live through the call.
                exists_is_fine(unsafe { libc::symlink(to.as_ptr(), path.as_ptr()) })
            }
            Step::Memory(path) => mount(c"none".as_ptr(), path, c"tmpfs".as_ptr(), 0),
            Step::Show(source, target, access) => show(source, target, *access),
            Step::ReadOnly(path, flags) => {
                mount(null, path, null, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | flags)
            }
            Step::ReadOnlyBelow(path) => read_only(libc::AT_FDCWD, path, libc::AT_RECURSIVE),
            Step::NotShown(path) => mount(null, path, null, libc::MS_UNBINDABLE),
            // SAFETY: the path is a string that lives through the call.
            Step::Hide(path) => answer(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }.into()),
            Step::Root(path) => change_root(path),
        }
    }
}

fn answer(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn exists_is_fine(result: libc::c_int) -> io::Result<()> {
    match answer(result.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn mount(
    source: *const libc::c_char,
    target: &CStr,
    kind: *const libc::c_char,
    flags: libc::c_ulong,
) -> io::Result<()> {
    // SAFETY: every pointer is null or a string that lives through the call.
    answer(unsafe { libc::mount(source, target.as_ptr(), kind, flags, std::ptr::null()) }.into())
}

/// Places that are trusted are mounted by their paths. Others are opened first: neither end is looked up again, so
/// that no link can come in between; never through /proc, where a volume of the pod may lie.
fn show(source: &Spot, target: &Spot, access: Access) -> io::Result<()> {
    if let (Some(from), Some(to), true) = (source.plain(), target.plain(), access != Access::ReadOnlyBelow) {
        return mount(from.as_ptr(), to, std::ptr::null(), libc::MS_BIND | libc::MS_REC);
    }
    let empty = c"".as_ptr();
    let from = source.open()?;
    let flags = OPEN_TREE_CLONE | libc::AT_RECURSIVE | libc::AT_EMPTY_PATH | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open, and the string lives through the call.
    let tree = owned(unsafe { libc::syscall(libc::SYS_open_tree, from.as_raw_fd(), empty, flags) })?;
    match access {
        Access::Full => {}
        Access::ReadOnly => read_only(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?,
        Access::ReadOnlyBelow => {
            read_only(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)?;
        }
    }
    let to = target.open()?;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both descriptors are open, and the string lives through the call.
    answer(unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, to.as_raw_fd(), empty, flags)
    })
}

fn read_only(folder: libc::c_int, path: &CStr, flags: libc::c_int) -> io::Result<()> {
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the string and the struct, of which the size is right, live through the call.
    answer(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
}

/// The old root is let go of, so that no right leads back to it; where the system can't (its root is no mount), the
/// new one is only entered.
fn change_root(path: &CStr) -> io::Result<()> {
    let (here, root) = (c".".as_ptr(), c"/".as_ptr());
    // SAFETY: here and below: strings that live through the calls.
    answer(unsafe { libc::chdir(path.as_ptr()) }.into())?;
    // SAFETY: see above.
    if answer(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) }).is_ok() {
        // SAFETY: see above. Both roots lie at the same place now; the old one is on top.
        answer(unsafe { libc::umount2(here, libc::MNT_DETACH) }.into())?;
    } else {
        // SAFETY: see above.
        answer(unsafe { libc::chroot(here) }.into())?;
    }
    // SAFETY: see above.
    answer(unsafe { libc::chdir(root) }.into())?;
    mount(std::ptr::null(), c"/", std::ptr::null(), libc::MS_PRIVATE)
}
