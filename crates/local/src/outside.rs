//! A process that stays in the network which this one leaves for its island, and works there on request.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid};

use crate::single_thread::is_single_threaded;

/// The process, with work that waits to be done. Dropped, it ends without having done it.
#[derive(Debug)]
pub struct Outside {
    process: Pid,
    go: OwnedFd,
    answer: OwnedFd,
}

impl Outside {
    /// Prepares work whose outcome is a text. Must be called before this process has a second thread; the work
    /// may start some.
    pub fn prepare(work: impl FnOnce() -> String) -> io::Result<Self> {
        if !is_single_threaded()? {
            return Err(io::Error::other("work outside must be prepared before the first thread starts"));
        }
        let (told, go) = pipe2(OFlag::O_CLOEXEC)?;
        let (answer, answering) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the process has one thread, so the child inherits no lock that another thread holds.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((go, answer));
                // Out of reach of the terminal's signals: its time comes when the rest ends.
                let _ = setsid();
                if matches!(File::from(told).read(&mut [0]), Ok(1)) {
                    let text = work();
                    // A parent that is gone needs no answer.
                    let _ = File::from(answering).write_all(text.as_bytes());
                }
                // SAFETY: ends the child without running what the parent registered for its own exit.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop((told, answering));
                Ok(Outside { process: child, go, answer })
            }
        }
    }

    /// Has the work done, and waits for its outcome.
    pub fn run(self) -> io::Result<String> {
        let Outside { process, go, answer } = self;
        File::from(go).write_all(&[1])?;
        let mut text = String::new();
        File::from(answer).read_to_string(&mut text)?;
        while waitpid(process, None) == Err(nix::errno::Errno::EINTR) {}
        Ok(text)
    }
}
