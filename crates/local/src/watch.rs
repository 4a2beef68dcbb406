//! Waiting for a child before this process has threads: what the guard and the front have in common.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The signals by which a user, a terminal or a service manager asks a program to end.
const REQUESTS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
/// The exit status of a program that a signal ended: the shells' convention.
const SIGNALLED: i32 = 128;

/// The signals that this process handles by waiting for them; the child gets them back.
pub struct Signals {
    before: SigSet,
    queue: SignalFd,
}

impl Signals {
    /// Holds the signals back from now on, so that none is lost between a fork and the first wait.
    pub fn hold() -> io::Result<Self> {
        let mut held: SigSet = REQUESTS.into_iter().collect();
        held.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask()?;
        held.thread_block()?;
        Ok(Self {
            before,
            queue: SignalFd::with_flags(&held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
        })
    }

    /// Lets the signals through again, as before [`Signals::hold`]: for the child.
    pub fn release(self) -> io::Result<()> {
        Ok(self.before.thread_set_mask()?)
    }
}

/// Whether signals from the terminal reach the child by themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// The child has the same terminal, and got what the terminal sent.
    Shared,
    /// The child has another session: all is passed on.
    Own,
}

/// How a wait came to its end.
pub enum Ended {
    /// The child exited, with this status.
    Exited(i32),
    /// There is something to read, or nobody left to write.
    Readable,
}

/// Waits for the child's end, or for `stop` to be readable. Passes requests to end on to the child, and buries
/// what else dies beneath this process.
pub fn watch(
    child: Pid,
    signals: &Signals,
    terminal: Terminal,
    stop: Option<BorrowedFd<'_>>,
) -> io::Result<Ended> {
    loop {
        if let Some(status) = bury(Some(child)) {
            return Ok(Ended::Exited(status));
        }
        let waited = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is one that poll(2) ignores.
        let mut waits =
            [waited(signals.queue.as_fd().as_raw_fd()), waited(stop.map_or(-1, |stop| stop.as_raw_fd()))];
        // SAFETY: both entries are initialised, and there are two.
        if unsafe { libc::poll(waits.as_mut_ptr(), 2, -1) } < 0 && Errno::last() != Errno::EINTR {
            return Err(io::Error::last_os_error());
        }
        if waits[1].revents != 0 {
            return Ok(Ended::Readable);
        }
        while let Some(received) = signals.queue.read_signal()? {
            let Some(signal) = i32::try_from(received.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok())
            else {
                continue;
            };
            // A terminal that goes away says so to the leader of its session, which may be this process alone.
            let is_from_terminal = received.ssi_code == libc::SI_KERNEL && signal != Signal::SIGHUP;
            if signal != Signal::SIGCHLD && !(is_from_terminal && terminal == Terminal::Shared) {
                // A child that has ended needs no request.
                let _ = kill(child, signal);
            }
        }
    }
}

/// Waits for all children that have ended, without waiting for one to end; the status of `child` if it is
/// among them.
pub fn bury(child: Option<Pid>) -> Option<i32> {
    let mut status = None;
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, SIGNALLED + signal as i32),
            Ok(WaitStatus::StillAlive) => return status,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return status,
        };
        if Some(pid) == child {
            status = Some(code);
        }
    }
}
