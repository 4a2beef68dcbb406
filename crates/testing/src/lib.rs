//! What tests want of the machine that they run on (programs, namespaces), and how they say what it lacks; and an allocator that
//! counts.
//!
//! A test that can't run on a machine prints one line that begins with `skipped:` and passes. Where the environment's
//! [`MUST`] names what is missing (`HOLDFAST_MUST=etcd,netns`), it fails instead: CI names there all that it installed, so
//! that a test never stops running without a word.
//!
//! The names are those of programs, and `netns` (network and user namespaces), `mounts` (mount namespaces, disks that can be
//! filled in them), `cgroups` (making and killing cgroups of version 2), `seccomp` (filters by which the kernel asks
//! before it does a system call), `ptrace` (halting threads of a child), `python` (the Kubernetes client for Python),
//! `users` (running a program as another user).

mod allocator;

use std::fmt::Display;
use std::process::{Command, Stdio};

pub use allocator::CountingAllocator;

/// The environment's variable that names, with commas between, what this machine must have.
pub const MUST: &str = "HOLDFAST_MUST";

/// Says that a test, or a part of one, is left out as the machine lacks `what`; `why` says it for people.
///
/// # Panics
/// Where [`MUST`] names `what`.
pub fn skip(what: &str, why: impl Display) {
    let must = std::env::var(MUST).unwrap_or_default();
    assert!(!names(&must, what), "{MUST} says that this machine has {what}, but: {why}");
    eprintln!("skipped: {why}");
}

fn names(must: &str, what: &str) -> bool {
    must.split(',').any(|name| name.trim() == what)
}

/// Whether a program can be started; [`skip`]s if it can't.
///
/// # Panics
/// Where [`MUST`] names it and it can't be started.
pub fn has(program: &str) -> bool {
    // Which argument a program knows doesn't matter: it is there once it could be started.
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok();
    if !there {
        skip(program, format_args!("{program} is not installed"));
    }
    there
}

/// Whether this machine allows user and network namespaces.
pub fn allows_namespaces() -> bool {
    Command::new("unshare").args(["-Urn", "true"]).output().is_ok_and(|out| out.status.success())
}

/// [`allows_namespaces`]; [`skip`]s if it doesn't.
///
/// # Panics
/// Where [`MUST`] names `netns` and there are none.
pub fn has_namespaces() -> bool {
    let allowed = allows_namespaces();
    if !allowed {
        skip("netns", "this machine allows no network namespaces");
    }
    allowed
}

/// Whether the kernel can ask another process before it does a system call (seccomp_unotify(2)); [`skip`]s if it can't.
///
/// # Panics
/// Where [`MUST`] names `seccomp` and it can't.
pub fn has_seccomp() -> bool {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let there = actions.split_whitespace().any(|action| action == "user_notif");
    if !there {
        skip("seccomp", "the kernel asks nobody before system calls");
    }
    there
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn what_must_be_there_is_named_whole() {
        assert!(names("etcd,netns", "netns") && names("etcd, netns", "netns"));
        assert!(!names("etcdctl", "etcd") && !names("", "etcd"));
    }
}
