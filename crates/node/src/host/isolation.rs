//! Which namespaces this host may give to a process: asked of the kernel once, by trying.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use serde::{Deserialize, Serialize};

/// What the kernel allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Isolation {
    /// Mount and UTS namespaces directly: the agent has CAP_SYS_ADMIN.
    Privileged,
    /// Mount and UTS namespaces within a user namespace that maps the agent's user to itself.
    UserNamespace,
    /// None: a process sees the host's files and name.
    None,
}

const PRIVILEGED: i32 = 10;
const USER_NAMESPACE: i32 = 11;

impl Isolation {
    /// Tries it in a child process.
    pub(crate) fn probe() -> Self {
        // SAFETY: the child makes only system calls, allocates nothing, and leaves by _exit.
        let child = match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => child,
            Ok(ForkResult::Child) => {
                let code = match () {
                    () if works(libc::CLONE_NEWNS | libc::CLONE_NEWUTS) => PRIVILEGED,
                    () if works(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWUTS) => {
                        USER_NAMESPACE
                    }
                    () => 0,
                };
                // SAFETY: ends this child at once.
                unsafe { libc::_exit(code) }
            }
            Err(_) => return Isolation::None,
        };
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, PRIVILEGED)) => Isolation::Privileged,
            Ok(WaitStatus::Exited(_, USER_NAMESPACE)) => Isolation::UserNamespace,
            _ => Isolation::None,
        }
    }

    /// The flags of `unshare`.
    pub(super) fn flags(self) -> libc::c_int {
        match self {
            Isolation::Privileged => libc::CLONE_NEWNS | libc::CLONE_NEWUTS,
            Isolation::UserNamespace => libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWUTS,
            Isolation::None => 0,
        }
    }
}

/// Whether these namespaces can be made and used: some kernels make them but give no rights in them.
fn works(flags: libc::c_int) -> bool {
    // SAFETY: plain system calls on constants, in a child of its own.
    unsafe {
        libc::unshare(flags) == 0
            && libc::sethostname(c"probe".as_ptr(), 5) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    }
}
