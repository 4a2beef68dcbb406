//! What makes sure, beyond the lease, that a host has stopped what must not run twice.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `fencing` of a host's configuration. Without it a host stops by its lease alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fencing {
    /// The device that resets the machine unless this host feeds it, such as `/dev/watchdog`. None is opened unless it is named: an open one
    /// resets a machine whose feeder is killed, and the device may be somebody else's already (systemd's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<PathBuf>,
}

impl Fencing {
    pub(crate) fn is_default(&self) -> bool {
        *self == Fencing::default()
    }
}
