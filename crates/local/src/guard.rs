//! A process above the program that outlives it for a moment: whatever the program leaves behind, even when it
//! is killed, the guard ends.

use std::io;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork, getpid, getppid};

use crate::single_thread::{is_single_threaded, quiet};
use crate::tree;
use crate::watch::{Ended, Signals, Terminal, bury, watch};

/// How often the guard looks for processes that it still has to end.
const ROUNDS: usize = 100;

/// Why there can't be a guard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are threads already, which would stay behind in the guard.
    #[error("a guard must be stood before the program starts its first thread")]
    Threads,
    /// What the system said.
    #[error("can't stand guard over this program: {0}")]
    System(io::Error),
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        Error::System(why)
    }
}

/// Splits the process in two: a guard, which never returns from here, and the program, which does. When the
/// program ends, in whatever way, the guard ends all processes that are left beneath it and exits with the
/// program's status. When the guard is killed, the program gets a SIGTERM. Signals to the guard that ask it to
/// end are passed on. Must be called before the process has a second thread.
pub fn stand_guard() -> Result<(), Error> {
    if !is_single_threaded()? {
        return Err(Error::Threads);
    }
    // Before the fork, which doesn't hand it down: the program may end before the guard has run at all.
    prctl::set_child_subreaper(true).map_err(io::Error::from)?;
    let signals = Signals::hold()?;
    let guard = getpid();
    // SAFETY: the process has one thread, so the child inherits no lock that another thread holds.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)?;
            signals.release()?;
            if getppid() != guard {
                return Err(Error::System(io::Error::other("the guard was killed")));
            }
            Ok(())
        }
        ForkResult::Parent { child } => {
            // A reader of the program's output is to see its end when the program lets go of it.
            let _ = quiet();
            let status = match watch(child, &signals, Terminal::Shared, None) {
                Ok(Ended::Exited(status)) => status,
                Ok(Ended::Readable) | Err(_) => 1,
            };
            end_all_beneath();
            // Not `exit`: what the program registered for its end is the program's.
            // SAFETY: ends this process and touches no memory.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Ends what is left. The dead children of one that was killed come here and may be parents in turn.
fn end_all_beneath() {
    let me = getpid().as_raw();
    for _ in 0..ROUNDS {
        bury(None);
        let children: Vec<i32> = tree::processes()
            .map(|table| {
                table.iter().filter(|process| process.parent == me).map(|process| process.pid).collect()
            })
            .unwrap_or_default();
        if children.is_empty() {
            return;
        }
        // What can't be killed now is tried again in the next round.
        let _ = tree::kill_all(&children);
    }
}
