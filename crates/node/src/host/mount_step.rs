//! One step of a plan of mounts, carried out between fork and exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::container::Access;
use crate::container::beneath::{Spot, owned};
use crate::container::mounting::{
    Attributes, RDONLY, answer, move_mount, open_tree, set_attributes, set_tree_attributes,
};

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
            Step::ReadOnlyBelow(path) => {
                set_attributes(libc::AT_FDCWD, path, libc::AT_RECURSIVE, read_only())
            }
            Step::NotShown(path) => mount(null, path, null, libc::MS_UNBINDABLE),
            // SAFETY: the path is a string that lives through the call.
            Step::Hide(path) => answer(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }.into()),
            Step::Root(path) => change_root(path),
        }
    }
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
    let tree = open_tree(source.open()?.as_fd(), true)?;
    match access {
        Access::Full => {}
        Access::ReadOnly | Access::ReadOnlyBelow => {
            set_tree_attributes(tree.as_fd(), access == Access::ReadOnlyBelow, read_only())?;
        }
    }
    move_mount(tree.as_fd(), target.open()?.as_fd())
}

fn read_only() -> Attributes {
    Attributes { set: RDONLY, ..Attributes::default() }
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
