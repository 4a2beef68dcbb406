//! How a process is made that begins in other namespaces than its shim: a helper enters them, and makes it as its own sibling,
//! so that it is the shim's child, whose end the shim hears of. Namespaces of processes only count for those made after they were
//! entered (pid_namespaces(7)).

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// What failed, in words for people.
pub(super) type Failure = String;

/// Says what was tried when a system call failed.
pub(super) trait Trying<T> {
    fn trying(self, what: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Trying<T> for Result<T, E> {
    fn trying(self, what: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|why| format!("{what}: {}", why.into()))
    }
}

pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pipe() -> Result<(File, File), Failure> {
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).trying("make a pipe")?;
    Ok((read.into(), write.into()))
}

/// Where a process-to-be tells what failed. It ends with the program's start, or with [`Line::close`].
#[derive(Debug)]
pub(super) struct Line(File);

impl Line {
    /// Whether nobody hears any more: then the shim died.
    pub(super) fn is_dead(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: the one entry lives through the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLERR != 0 }
    }

    /// All went well, and no program will be started.
    pub(super) fn close(self) {}
}

/// Makes a process: `enter` runs in the helper, `begin` with its answer in the process itself. Answers its id.
///
/// # Errors
/// What failed in either.
pub(super) fn make<T>(
    enter: impl FnOnce() -> Result<T, Failure>,
    begin: impl FnOnce(T, Line) -> Result<Infallible, (Failure, Line)>,
) -> Result<i32, Failure> {
    let ((mut told, mut tell), (mut heard, failed)) = (pipe()?, pipe()?);
    // SAFETY: the shim has one thread: its child may do whatever it could do itself.
    match unsafe { fork() }.trying("fork")? {
        ForkResult::Child => {
            drop((told, heard));
            let mut line = Line(failed);
            let why = match enter().and_then(|with| Ok((with, sibling().trying("fork")?))) {
                Ok((_, pid @ 1..)) => {
                    let done = tell.write_all(&pid.to_le_bytes()).is_ok();
                    // SAFETY: ends this helper at once.
                    unsafe { libc::_exit(i32::from(!done)) }
                }
                Ok((with, _)) => {
                    drop(tell);
                    match begin(with, line) {
                        Ok(never) => match never {},
                        Err((why, back)) => {
                            line = back;
                            why
                        }
                    }
                }
                Err(why) => why,
            };
            let _ = line.0.write_all(why.as_bytes());
            // SAFETY: ends this process at once: what its parent has is none of its business.
            unsafe { libc::_exit(1) }
        }
        ForkResult::Parent { child } => {
            drop((tell, failed));
            let mut pid = [0; 4];
            let pid = told.read_exact(&mut pid).is_ok().then(|| i32::from_le_bytes(pid));
            let _ = waitpid(child, None);
            let mut why = Vec::new();
            let _ = heard.read_to_end(&mut why);
            match pid {
                Some(pid) if why.is_empty() => Ok(pid),
                pid => {
                    if let Some(pid) = pid {
                        let _ = waitpid(Pid::from_raw(pid), None);
                    }
                    let why = String::from_utf8_lossy(&why).into_owned();
                    Err(if why.is_empty() {
                        "the process ended before its program began".into()
                    } else {
                        why
                    })
                }
            }
        }
    }
}

/// Forks a child of this process' own parent: 0 in it.
fn sibling() -> io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without memory in common it is a fork; the C library's notion of the thread's number, which it doesn't
    // renew, is asked by nobody before the program's start.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match i32::try_from(pid) {
        Ok(pid @ 0..) => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}
