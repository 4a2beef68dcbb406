//! Killing all that is in a cgroup, whatever it forks meanwhile.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::hierarchy::{each, processes, read, write};

/// The file of version 2 by which the kernel kills.
pub(super) const KILL: &str = "cgroup.kill";
/// The file of version 1 by which it stops and goes on.
pub(super) const FREEZER: &str = "freezer.state";
/// How often it is looked whether all has stopped, and how long is waited in between. What waits for a disk doesn't stop until then.
const STOPS: (u32, Duration) = (50, Duration::from_millis(1));

/// Kills all that is in a cgroup and beneath it, at once: what is forked meanwhile dies too (cgroup-v2.rst, `cgroup.kill`). Version 1
/// has no such file: there all is stopped first, so that nothing is forked, and goes on once each has its signal (freezer-subsystem.rst).
///
/// # Errors
/// If the kernel can't.
pub(crate) fn kill(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    match write(cgroup, KILL, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => kill_stopped(cgroup),
        done => done,
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing tells when a cgroup of version 1 has stopped")]
fn kill_stopped(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    write(cgroup, FREEZER, "FROZEN")?;
    let (rounds, rest) = STOPS;
    for _ in 0..rounds {
        if read(cgroup, FREEZER).is_ok_and(|state| state.trim_end() == "FROZEN") {
            break;
        }
        std::thread::sleep(rest);
    }
    for pid in processes(cgroup) {
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // A container that may make cgroups may have stopped some itself, and what is stopped doesn't die.
    each(cgroup, &mut |one| _ = write(one, FREEZER, "THAWED"));
    write(cgroup, FREEZER, "THAWED")
}
