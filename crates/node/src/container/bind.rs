//! A volume at one of a container's paths.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfinedPath;

/// One volume at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// What people call it: `volume "data"`.
    pub what: String,
    /// What is shown.
    pub source: ConfinedPath,
    /// Where.
    pub target: PathBuf,
    /// Whether the process may change it.
    pub access: Access,
    /// Which mounts below it show elsewhere.
    pub propagation: Propagation,
    /// Where the source lies.
    pub origin: Origin,
}

impl Bind {
    /// Something of the agent's own.
    pub(crate) fn of_agent(
        what: impl Into<String>,
        source: ConfinedPath,
        target: PathBuf,
        access: Access,
    ) -> Self {
        Bind {
            what: what.into(),
            source,
            target,
            access,
            propagation: Propagation::None,
            origin: Origin::Host,
        }
    }
}

/// Where a mount below what is shown to a container shows, if it was made after that (`mountPropagation`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Where it was made, alone.
    #[default]
    None,
    /// In the container too, if the host made it (`HostToContainer`).
    FromHost,
    /// On the host too, if the container made it (`Bidirectional`).
    BothWays,
}

/// Where what is shown to a container lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the host.
    #[default]
    Host,
    /// In the pod's memory, which its shim alone sees.
    Memory,
    /// In an image, which is mounted for the container alone.
    Image,
}

/// What a process may do with what is shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    Full,
    /// What is mounted below it keeps the access that it has.
    ReadOnly,
    /// All below it too (`recursiveReadOnly`).
    ReadOnlyBelow,
}
