//! The shim of a pod: this program executed once more, with one thread and little memory. It makes the pod's processes,
//! which a program with threads must not do, holds what they print and writes their logs, and buries them. It
//! outlives the agent, so that an upgrade or a crash restarts no pod; when it ends itself, so do its containers.
//!
//! It knows no objects and decides nothing: the agent says what to start, and asks how it ended.

mod contained;
mod output;
mod peer;
mod reaping;
mod supervisor;
pub(crate) mod wire;

use std::env;
use std::process::ExitCode;

/// The first argument of a program that is to be a shim. The second is the pod's folder, for those who look for the
/// pods of a host among its processes.
pub const SHIM: &str = "shim";

/// Whether this program was executed as a pod's shim; if so, it was one, and ends with what is answered. Called before
/// anything else, while there is one thread.
pub fn run_shim() -> Option<ExitCode> {
    if env::args_os().nth(1)? != SHIM {
        return None;
    }
    // Nobody hears what it might say.
    Some(match supervisor::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}
