//! Whether this host can run containers with a root of their own: asked of the kernel once, by trying.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Why it can't, by the code with which the child that tries ends.
const WHY: [(i32, &str); 4] = [
    (10, "its agent may not make namespaces of mounts (it must run as root)"),
    (11, "its kernel can't change mounts by descriptors (Linux 5.12 can)"),
    (12, "its kernel has no overlayfs"),
    (13, "its kernel has no seccomp filters"),
];

/// Tries it in a child process.
///
/// # Errors
/// Why it can't.
pub(crate) fn probe() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(WHY[0].1.into());
    }
    // SAFETY: the child makes only system calls, allocates nothing, and leaves by _exit.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            let code = attempt();
            // SAFETY: ends this child at once.
            unsafe { libc::_exit(code) }
        }
        Err(why) => return Err(format!("can't fork: {why}")),
    };
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        Ok(WaitStatus::Exited(_, code)) => {
            let why =
                WHY.iter().find(|(known, _)| *known == code).map_or("it is not known why", |(_, why)| why);
            Err(why.into())
        }
        other => Err(format!("the attempt to make namespaces ended oddly: {other:?}")),
    }
}

/// A code of [`WHY`], or 0.
fn attempt() -> i32 {
    let missing = || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS);
    // SAFETY: here and below: system calls on constants, in a child of its own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID) } != 0 {
        return 10;
    }
    // SAFETY: see above. It fails in any case: as a call that is there, or as one that isn't.
    if unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, 0, 0) } < 0 && missing() {
        return 11;
    }
    // SAFETY: see above. The kernel loads what it is a module of.
    if unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 0) } < 0 {
        return 12;
    }
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: see above; the number lives through the call.
    let known =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if known < 0 { 13 } else { 0 }
}
