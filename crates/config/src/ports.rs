//! The ports of a host.

use serde::{Deserialize, Serialize};

/// The ports on which a host listens, each on the host's own address. `defaults.yaml` says what the defaults are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ports {
    /// The API's, also on the virtual address.
    pub api: u16,
    /// That of etcd's API.
    pub etcd: u16,
    /// The store's members among themselves.
    pub store: u16,
    /// Heartbeats (UDP).
    pub heartbeats: u16,
    /// The agent's.
    pub agent: u16,
}

impl Ports {
    /// The usual ones.
    pub const DEFAULT: Ports = Ports { api: 6443, etcd: 2379, store: 2380, heartbeats: 2381, agent: 10250 };

    /// All of them with their names.
    pub(crate) fn named(&self) -> [(&'static str, u16); 5] {
        let Ports { api, etcd, store, heartbeats, agent } = *self;
        [("api", api), ("etcd", etcd), ("store", store), ("heartbeats", heartbeats), ("agent", agent)]
    }
}

impl Default for Ports {
    fn default() -> Self {
        Ports::DEFAULT
    }
}
