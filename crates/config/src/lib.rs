//! A host's configuration, in one file: its name, its addresses and networks, the members that its cluster begins with,
//! its folders, its ports and its timeouts, whom it asks for names, when its pods are evicted, how they end as it shuts
//! down, where it records what requests did, and how its cluster places pods.
//!
//! [`HostConfig`] is that file as a type. [`HostConfig::load`] reads it and refuses what can't work, with the file, the
//! field and what to do; [`HostConfig::check`] is all that it refuses. What a file leaves out of its settings is as
//! in [`DEFAULTS`], which says why.

mod addresses;
mod audit;
mod check;
mod datastore;
mod dns;
mod eviction;
mod fencing;
mod file;
mod host;
mod ports;
mod scheduling;
mod shutdown;
mod timeouts;
mod token_webhook;
mod virtual_routers;

pub use addresses::AddressRange;
pub use audit::{Audit, AuditLog, AuditWebhook};
pub use check::{Findings, MOST_MEMBERS, Problem, is_host_name, is_new_host_name, overlap};
pub use datastore::Datastore;
pub use dns::{Dns, PodNames, Upstream};
pub use eviction::{Bound, Bounds, Eviction, Grace, Signal};
pub use fencing::{FenceAction, FenceAgent, Fencing};
pub use file::Error;
pub use host::{HostConfig, NetConfig};
pub use ports::Ports;
pub use scheduling::{
    DefaultConstraint, FREE_FILTERS, Plugin, PluginConfig, PluginSet, Plugins, Profile, Refused, Scheduling,
    Settled, WEIGHED_SCORES, WhenUnsatisfiable,
};
pub use shutdown::{PriorityGrace, Shutdown};
pub use timeouts::{Heartbeats, LeaseTimeouts, NodeTimeouts, StoreTimeouts, Timeouts, Watchdog};
pub use token_webhook::TokenWebhook;

/// All settings of a host beside who it is and where its files lie, as they are where its configuration says nothing: YAML, with the
/// reasons. What has no value by default stands behind a `#`, as an example.
pub const DEFAULTS: &str = include_str!("defaults.yaml");
