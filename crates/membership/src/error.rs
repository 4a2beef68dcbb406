//! What can go wrong with heartbeats.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why heartbeats can't be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address for heartbeats can't be had.
    #[error("can't listen for heartbeats on {address} (UDP): {why}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// The thread that exchanges heartbeats can't be started.
    #[error("can't start the thread for heartbeats: {0}")]
    Thread(std::io::Error),
    /// The host's name can't be sent.
    #[error("the host name {0:?} is not usable for heartbeats: it must have 1 to 253 characters")]
    Name(String),
    /// There is no memory to share with the host's pods.
    #[error("can't make the page that says until when this host's lease holds: {0}")]
    Page(std::io::Error),
    /// What the host has promised can't be read.
    #[error(
        "what this host has promised about others' leases can't be read from {}: {why}; move this file and the folder of the host's \
         store away, and it joins the other members anew",
        file.display()
    )]
    Memory {
        /// Where it should be.
        file: PathBuf,
        /// What is wrong with it.
        why: std::io::Error,
    },
}
