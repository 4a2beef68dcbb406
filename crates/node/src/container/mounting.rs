//! The kernel's calls that mount by descriptors instead of paths (Linux 5.2 to 5.12): nothing is looked up twice, so no link
//! can come in between. Only system calls: they are made between fork and exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::beneath::owned;

// Of linux/mount.h; the libc crate has them for some systems only.
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_int = 0x40;
const FSOPEN_CLOEXEC: libc::c_int = 1;
const FSMOUNT_CLOEXEC: libc::c_int = 1;
const FSCONFIG_SET_FLAG: libc::c_int = 0;
const FSCONFIG_SET_STRING: libc::c_int = 1;
const FSCONFIG_CMD_CREATE: libc::c_int = 6;

/// Attributes of a mount, as mount_setattr(2) has them.
pub(crate) const RDONLY: u64 = 0x1;
pub(crate) const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
pub(crate) const NOEXEC: u64 = 0x8;
/// The bits in which how access times are kept lies; no bit of them is `relatime`.
pub(crate) const ATIME: u64 = 0x70;
pub(crate) const NOATIME: u64 = 0x10;
pub(crate) const STRICTATIME: u64 = 0x20;
const IDMAP: u64 = 0x10_0000;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// `MS_PRIVATE` and its siblings, or 0.
    pub propagation: u64,
    pub user_namespace: u64,
}

pub(crate) fn answer(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy of the mount at an open place, and of all below it if that is wanted, attached nowhere.
pub(crate) fn open_tree(place: BorrowedFd<'_>, is_recursive: bool) -> io::Result<OwnedFd> {
    let below = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | below | libc::AT_EMPTY_PATH | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open, and the string lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches a mount that is attached nowhere to an open place.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let (flags, empty) = (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH, c"".as_ptr());
    // SAFETY: both descriptors are open, and the string lives through the call.
    answer(unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, to.as_raw_fd(), empty, flags)
    })
}

/// Changes a mount at a path beneath a descriptor, or at it (`AT_EMPTY_PATH`); all below it with `AT_RECURSIVE`.
pub(crate) fn set_attributes(
    folder: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    attributes: Attributes,
) -> io::Result<()> {
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

/// Changes a mount that is open, and all below it if that is wanted.
pub(crate) fn set_tree_attributes(
    tree: BorrowedFd<'_>,
    is_recursive: bool,
    attributes: Attributes,
) -> io::Result<()> {
    let below = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH | below, attributes)
}

/// Shows a mount that is attached nowhere as a user namespace maps it: what belongs to user 0 on the disk is that
/// namespace's user 0 (mount_setattr(2), "ID-mapped mounts").
pub(crate) fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let user_namespace = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    set_tree_attributes(tree, false, Attributes { set: IDMAP, user_namespace, ..Attributes::default() })
}

/// Makes a file system of that kind with these options (name and value, or a name alone), attached nowhere.
pub(crate) fn new_mount(
    kind: &CStr,
    source: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    // SAFETY: the string lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let set = |command: libc::c_int, name: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: the strings live through the call, and the kernel only reads them.
        answer(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, name, value, 0) })
    };
    set(FSCONFIG_SET_STRING, c"source".as_ptr(), source.as_ptr())?;
    for (name, value) in options {
        match value {
            Some(value) => set(FSCONFIG_SET_STRING, name.as_ptr(), value.as_ptr())?,
            None => set(FSCONFIG_SET_FLAG, name.as_ptr(), std::ptr::null())?,
        }
    }
    set(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: a call on a descriptor and numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}
