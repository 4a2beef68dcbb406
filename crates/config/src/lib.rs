//! A host's configuration: its name, its addresses and networks, the members that its cluster begins with, its folders.

mod host;

pub use host::{Datastore, Error, HostConfig, NetConfig};
