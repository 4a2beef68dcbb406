//! A program that lives on after the shell has its exit status: what `drill --keep` leaves running.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::{ForkResult, dup2_stderr, fork, pipe2, setsid};

use crate::single_thread::{is_single_threaded, quiet};
use crate::watch::{Ended, Signals, Terminal, watch};

/// Why a program can't be split off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are threads already, which would stay behind.
    #[error("a program must be split off before it starts its first thread")]
    Threads,
    /// What the system said.
    #[error("can't split the program off from its shell: {0}")]
    System(io::Error),
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        Error::System(why)
    }
}

/// The process in front, which the shell waits for.
///
/// Dropped without [`Front::release`], it stays until this process ends and then exits with its status.
#[derive(Debug)]
pub struct Front {
    pipe: OwnedFd,
}

/// Splits the process in two: a front, which never returns from here, and the program in a session of its own,
/// which does. The front passes signals on, and exits when it is released or the program ends. Must be called
/// before the process has a second thread.
pub fn split_off() -> Result<Front, Error> {
    if !is_single_threaded()? {
        return Err(Error::Threads);
    }
    let signals = Signals::hold()?;
    let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    // SAFETY: the process has one thread, so the child inherits no lock that another thread holds.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Child => {
            drop(reader);
            setsid().map_err(io::Error::from)?;
            signals.release()?;
            Ok(Front { pipe: writer })
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut code = [1];
            let status = match watch(child, &signals, Terminal::Own, Some(reader.as_fd())) {
                Ok(Ended::Exited(status)) => status,
                Ok(Ended::Readable) => match File::from(reader).read(&mut code) {
                    Ok(1) => i32::from(code[0]),
                    // Nobody is left to release this process: the program's end is near.
                    _ => match watch(child, &signals, Terminal::Own, None) {
                        Ok(Ended::Exited(status)) => status,
                        _ => 1,
                    },
                },
                Err(_) => 1,
            };
            // SAFETY: ends this process and touches no memory.
            unsafe { libc::_exit(status) }
        }
    }
}

impl Front {
    /// Lets the front exit with this status. This process lives on without a terminal: its input and output
    /// lead nowhere from here.
    pub fn release(self, status: u8) -> Result<(), Error> {
        quiet()?;
        self.tell(status)
    }

    /// As [`release`](Self::release), but what this process still says goes to `log`.
    pub fn release_to(self, status: u8, log: &File) -> Result<(), Error> {
        quiet()?;
        dup2_stderr(log).map_err(io::Error::from)?;
        self.tell(status)
    }

    fn tell(self, status: u8) -> Result<(), Error> {
        File::from(self.pipe).write_all(&[status])?;
        Ok(())
    }
}
