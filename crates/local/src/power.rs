//! The power of a host: what is on, what is frozen, what is off.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use tokio::process::Child;

use crate::tree::{self, Process};

/// A host's power.
pub enum Power {
    /// The host's process doesn't run.
    Off,
    /// The host's process runs.
    On(Running),
    /// Everything on the host is stopped, its sockets open: on loopback, a cut until it is buried.
    Frozen(Running),
}

/// A host's process.
pub struct Running {
    /// The process.
    pub child: Child,
    /// The host's folder, by its real path: the shims of its pods are known by it.
    pub folder: PathBuf,
    /// The inode of the host's network namespace, where it has one of its own.
    pub network: Option<u64>,
}

impl Running {
    /// The number of the host's process, until it has been waited for.
    pub fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// The processes that everything on this host is found under: its own, the shims of its pods, which may be of a former
    /// life, and whatever lives in its network namespace without being beneath it.
    pub fn roots(&self) -> Vec<i32> {
        let own = self.pid();
        let mut roots: Vec<i32> = own.into_iter().collect();
        roots.extend(tree::shims(&self.folder));
        if let Some(inode) = self.network {
            roots.extend(tree::in_network(inode).into_iter().filter(|&pid| Some(pid) != own));
        }
        roots
    }

    /// Everything on this host.
    pub fn tree(&self) -> Vec<Process> {
        tree::processes().map(|table| tree::beneath(&table, &self.roots())).unwrap_or_default()
    }

    /// Kills everything on this host at once.
    pub fn kill(&self) -> Result<(), tree::Error> {
        tree::kill_all(&self.roots())
    }

    /// Waits for the end of the host's process.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Power {
    /// What runs, frozen or not.
    pub fn running(&self) -> Option<&Running> {
        match self {
            Self::Off => None,
            Self::On(running) | Self::Frozen(running) => Some(running),
        }
    }

    /// Takes what is here, and leaves the power off.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Off)
    }
}
