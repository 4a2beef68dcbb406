//! The shim of a pod: this program executed once more, with one thread and little memory. It makes the pod's processes,
//! which a program with threads must not do, holds what they print and writes their logs, and buries them. It
//! outlives the agent, so that an upgrade or a crash restarts no pod; when it ends itself, so do its containers.
//!
//! It knows no objects and decides nothing: the agent says what to start, and asks how it ended.

mod contained;
mod keeper;
mod output;
mod peer;
mod reaping;
mod supervisor;
pub(crate) mod wire;

use std::env;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// The first argument of a program that is to be a shim. The second is the pod's folder, for those who look for the
/// pods of a host among its processes. The third is there for a pod that stops with the host's lease: the epoch (`keeper`).
pub const SHIM: &str = "shim";

/// What a keeper is called in the table of processes, where it has the arguments of its pod's shim.
pub(crate) const KEEPER: &CStr = c"holdfast-keeper";

/// Whether this program was executed as a pod's shim; if so, it was one, and ends with what is answered. Called before
/// anything else, while there is one thread.
pub fn run_shim() -> Option<ExitCode> {
    if env::args_os().nth(1)? != SHIM {
        return None;
    }
    // Nobody hears what it might say.
    Some(match be_shim() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn be_shim() -> io::Result<()> {
    // Of its own: a terminal's signals are for the agent that was started there. It leads one already if its parent saw to that.
    let _ = nix::unistd::setsid();
    // Once more, by the process that those who connect are to know this pod by: SO_PEERCRED names who listened last (unix(7)).
    // SAFETY: a system call on a number.
    if unsafe { libc::listen(io::stdin().as_raw_fd(), libc::SOMAXCONN) } != 0 {
        return Err(io::Error::last_os_error());
    }
    match env::args_os().nth(3) {
        Some(epoch) => keeper::run(epoch.to_string_lossy().parse().map_err(io::Error::other)?),
        None => supervisor::run(None),
    }
}
