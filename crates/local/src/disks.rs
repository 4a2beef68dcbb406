//! What the hosts' folders lie on: this machine's disk for all of them, or a file system in memory for each, so that one can be filled.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::fstatvfs;

use crate::addresses::Addresses;
use crate::folder::Folder;
use crate::single_thread::is_single_threaded;

/// What fills a disk.
const BALLAST: &str = "ballast";

/// What the hosts' folders lie on.
#[derive(Debug)]
pub enum Disks {
    /// This machine's disk, for all of them.
    Common,
    /// The same; but each host's syncs can be held up ([`Cluster::stall`](crate::Cluster::stall)). In healthy times that costs a sync two
    /// switches of processes.
    Stalling,
    /// File systems of their own, which can be filled ([`Cluster::fill`](crate::Cluster::fill)).
    Own(OwnDisks),
}

/// Why the hosts can't have disks of their own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are threads already, which would not see them.
    #[error("disks of the hosts' own must be mounted before the program starts its first thread")]
    Threads,
    /// The kernel, or a policy of this machine, doesn't allow it.
    #[error("this machine allows no disks of the hosts' own here ({0}); use --net netns, or be root")]
    Refused(Errno),
    /// A disk can't be mounted.
    #[error("can't mount a disk at {path}: {errno}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// What the system said to a look at /proc.
    #[error("can't find out whether there are threads: {0}")]
    System(#[from] io::Error),
}

/// A file system in memory over the data folder of each host: seen by this process and by what it starts, and there, with all that is on it, until
/// this is dropped, however often the hosts are started anew.
#[derive(Debug)]
pub struct OwnDisks {
    folders: BTreeMap<String, PathBuf>,
}

impl OwnDisks {
    /// Mounts a disk of this many bytes for each host of a cluster that has not run yet: what is in the data folders is hidden. To be called after
    /// [`Island::enter`](crate::Island::enter), where there is an island, and before the process has a second thread.
    ///
    /// # Errors
    /// [`Error`].
    pub fn mount(folder: &Folder, bytes: u64) -> Result<Self, Error> {
        if !is_single_threaded()? {
            return Err(Error::Threads);
        }
        unshare(CloneFlags::CLONE_NEWNS).map_err(Error::Refused)?;
        let none: Option<&str> = None;
        // The machine sees nothing of it.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(Error::Refused)?;
        let mut disks = OwnDisks { folders: BTreeMap::new() };
        let options = format!("size={bytes},mode=700");
        for (_, name) in Addresses::hosts(folder.record().nodes) {
            let path = folder.data(&name);
            match mount(Some("host-disk"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
                Ok(()) => disks.folders.insert(name, path),
                // Those that were mounted go again.
                Err(errno) => return Err(Error::Mount { path, errno }),
            };
        }
        Ok(disks)
    }

    /// What a host's disk is filled with; none if there is no such host.
    pub(crate) fn ballast(&self, host: &str) -> Option<Ballast> {
        self.folders.get(host).map(|folder| Ballast(folder.join(BALLAST)))
    }
}

impl Drop for OwnDisks {
    fn drop(&mut self) {
        for path in self.folders.values() {
            if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
                tracing::warn!(%error, path = %path.display(), "a host's disk stays mounted until this program ends");
            }
        }
    }
}

/// A file that takes the room on a disk.
#[derive(Debug)]
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    /// Grows until no more than this many bytes are left.
    pub(crate) fn fill(&self, left: u64) -> io::Result<()> {
        // Large ones for the most of it, and then one page after the other.
        let zeros = vec![0; 1 << 20];
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        for length in [zeros.len(), 4096] {
            while free(&file)? > left {
                match file.write(&zeros[..length]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Is gone, if it was there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The room that is left where a file lies, in bytes.
fn free(file: &File) -> io::Result<u64> {
    let stats = fstatvfs(file)?;
    // The types of the fields differ from system to system.
    #[allow(clippy::useless_conversion)]
    Ok(u64::from(stats.blocks_available()) * u64::from(stats.fragment_size()))
}
