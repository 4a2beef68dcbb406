//! How shims are started: the program that they are, where no container can change it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::bond::{self, Bond};
use super::link::socket_in;
use crate::container::mounting::{Attributes, RDONLY, open_tree, set_tree_attributes};
use crate::shim::SHIM;

/// Starts shims.
#[derive(Debug)]
pub(super) struct Launcher {
    program: PathBuf,
    /// The program on a mount of its own, which nobody can write to; None where this process may not mount, and so runs no
    /// containers.
    sealed: Option<OwnedFd>,
}

impl Launcher {
    /// For shims that are `program`.
    ///
    /// # Errors
    /// If this process can't tell what it has open.
    pub(super) fn new(program: PathBuf) -> io::Result<Self> {
        keep_descriptors()?;
        let sealed = seal(&program);
        if let Err(why) = &sealed {
            tracing::debug!(%why, "shims are started by the program's own path");
        }
        Ok(Launcher { program, sealed: sealed.ok() })
    }

    /// Starts a shim: in a session of its own, with nothing of the agent's but the socket that it listens at; if it is bound to the host's
    /// lease, also the page that says until when that holds, and the cgroup of the host's pods, if there is one.
    pub(super) fn launch(
        &self,
        folder: &Path,
        bond: Option<&Bond>,
        cgroups: Option<BorrowedFd<'_>>,
    ) -> io::Result<tokio::process::Child> {
        // First: what runs by a lease is found by it.
        bond::mark(folder, bond.is_some(), cgroups)?;
        let (_folder, path) = socket_in(folder)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Connections made before this line are refused by their user (`Peer::new`).
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let program = match &self.sealed {
            // Of the child, which has it until it is the program.
            Some(sealed) => format!("/proc/self/fd/{}", sealed.as_raw_fd()).into(),
            None => self.program.clone(),
        };
        let mut command = std::process::Command::new(program);
        command.arg0("holdfast").arg(SHIM).arg(folder).env_clear();
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(bond) = bond {
            command.arg(bond.epoch.to_string()).stdout(bond.page.file().try_clone_to_owned()?);
            if let Some(cgroups) = cgroups {
                command.stderr(cgroups.try_clone_to_owned()?);
            }
        }
        tokio::process::Command::from(command).spawn()
    }
}

/// Opens a program on a read-only mount that is attached nowhere. For a moment each process of a container is still its shim's
/// program, whose file it finds at `/proc/self/exe`, where a program of the image may have itself executed (`#!/proc/self/exe`):
/// root in there could write the host's own file (CVE-2019-5736).
fn seal(program: &Path) -> io::Result<OwnedFd> {
    let place = File::options().read(true).custom_flags(libc::O_PATH).open(program)?;
    let tree = open_tree(place.as_fd(), false)?;
    set_tree_attributes(tree.as_fd(), false, Attributes { set: RDONLY, ..Attributes::default() })?;
    Ok(tree)
}

/// What was open when the agent's program was started is none of its pods' business; all that it opens itself is not
/// handed on anyway.
fn keep_descriptors() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok());
        if let Some(number) = number.filter(|number| *number > libc::STDERR_FILENO) {
            // SAFETY: sets a flag of a descriptor, or finds none of that number: that of this folder is closed soon.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
