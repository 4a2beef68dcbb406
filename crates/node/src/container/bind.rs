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
    /// Whether what the host mounts below it later shows there too (`mountPropagation: HostToContainer`).
    pub follows_host: bool,
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
