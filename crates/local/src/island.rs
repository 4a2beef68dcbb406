//! A network of this process' own, out of the machine's reach: the room in which the switch and the hosts'
//! links stand.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getegid, geteuid, pipe};

use crate::link;
use crate::single_thread::is_single_threaded;

/// Why this process can't have a network of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are threads already, which would stay behind in the machine's network.
    #[error("a network namespace must be entered before the program starts its first thread")]
    Threads,
    /// The kernel, or a policy of this machine, doesn't allow it.
    #[error("this machine doesn't allow network namespaces ({0}); use --net loopback")]
    Refused(Errno),
    /// The user namespace can't be set up.
    #[error("can't set up a user namespace ({file}: {why}); use --net loopback")]
    Map {
        /// The file under /proc/self that refused.
        file: &'static str,
        /// What the system said.
        why: io::Error,
    },
    /// What the system said to a fork, a pipe, or a look at /proc.
    #[error("can't find out whether network namespaces are allowed: {0}")]
    System(io::Error),
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        Error::System(why)
    }
}

/// What a machine says to network namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Namespaces, bridges and links can be had.
    Granted,
    /// They can't, for this reason.
    Refused(String),
}

/// The proof that this process lives in a network namespace of its own.
///
/// Sockets bound before stay in the machine's network, so a listener that is to be reached from the machine is
/// bound before [`Island::enter`]; everything opened afterwards belongs to the island.
#[derive(Debug)]
pub struct Island {
    _entered: (),
}

impl Island {
    /// Enters a new network namespace: directly as root, else within a user namespace in which this user is
    /// root. Must be called before the process has a second thread.
    pub fn enter() -> Result<Self, Error> {
        if !is_single_threaded()? {
            return Err(Error::Threads);
        }
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {}
            Err(Errno::EPERM) => enter_as_user()?,
            Err(errno) => return Err(Error::Refused(errno)),
        }
        Ok(Self { _entered: () })
    }

    /// Whether this machine allows islands, found out by a child that builds one with a host in it and goes
    /// away with it. Must be called before the process has a second thread.
    pub fn permission() -> Result<Permission, Error> {
        if !is_single_threaded()? {
            return Err(Error::Threads);
        }
        let (mut answer, sender) = pipe().map(|(r, w)| (fs::File::from(r), w)).map_err(io::Error::from)?;
        // SAFETY: the process has one thread, so the child inherits no lock that another thread holds.
        match unsafe { fork() }.map_err(io::Error::from)? {
            ForkResult::Child => {
                drop(answer);
                report(sender, try_out());
                // SAFETY: ends the child without running what the parent registered for its own exit.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(sender);
                let mut text = String::new();
                answer.read_to_string(&mut text)?;
                while waitpid(child, None) == Err(Errno::EINTR) {}
                Ok(match text.strip_prefix("granted") {
                    Some(_) => Permission::Granted,
                    None if text.is_empty() => Permission::Refused("the trial ended early".into()),
                    None => Permission::Refused(text),
                })
            }
        }
    }
}

fn enter_as_user() -> Result<(), Error> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(Error::Refused)?;
    // user_namespaces(7): setgroups is denied before an unprivileged process may write its gid_map.
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(file, text).map_err(|why| Error::Map { file, why })?;
    }
    Ok(())
}

fn try_out() -> Result<(), String> {
    let island = Island::enter().map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let bridge = link::Bridge::build(&island).await.map_err(|e| e.to_string())?;
        bridge.plug(1).await.map(drop).map_err(|e| e.to_string())
    })
}

fn report(sender: OwnedFd, outcome: Result<(), String>) {
    let text = outcome.err().unwrap_or_else(|| "granted".into());
    // A parent that is gone needs no answer.
    let _ = fs::File::from(sender).write_all(text.as_bytes());
}
