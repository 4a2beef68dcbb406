//! Why a folder can't be used for a cluster.

use std::io;
use std::path::PathBuf;

use super::record::VERSION;
use crate::addresses::{MOST_NODES, NetKind};

/// Why a folder can't be used for a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A number of hosts that can't be.
    #[error("a cluster on one machine has 1 to {MOST_NODES} nodes, not {0}")]
    Nodes(usize),
    /// Something else lives there.
    #[error("{0} isn't empty and holds no cluster of Holdfast; give an empty or new folder")]
    Foreign(PathBuf),
    /// The record of the cluster can't be understood.
    #[error("{path} can't be understood ({why}); restore it, or give another folder")]
    Record {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        why: serde_json::Error,
    },
    /// A newer program made the folder.
    #[error("{path} is of version {version}, and this program knows {VERSION}; use the newer program")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The cluster there has another size.
    #[error(
        "{path} holds a cluster made for --nodes {found}, not {asked}; use --nodes {found}, or another folder"
    )]
    OtherSize {
        /// The folder.
        path: PathBuf,
        /// How many nodes it has.
        found: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// The cluster there was made for another network.
    #[error(
        "{path} holds a cluster made for --net {found}, not {asked}; use --net {found}, or another folder"
    )]
    OtherNet {
        /// The folder.
        path: PathBuf,
        /// The network that it was made for.
        found: NetKind,
        /// The network that was asked for.
        asked: NetKind,
    },
    /// The state of the cluster there lies elsewhere.
    #[error(
        "{0} holds a cluster whose state lies in its own hosts, not in an etcd; give another folder for --datastore"
    )]
    OwnStore(PathBuf),
    /// The cluster there uses another prefix in its etcd.
    #[error(
        "{path} holds a cluster whose state lies in an etcd under {found}; use --datastore-prefix {found}, or \
         another folder"
    )]
    OtherPrefix {
        /// The folder.
        path: PathBuf,
        /// The prefix that it was made for.
        found: String,
    },
    /// The record of the cluster is gone, its hosts are there.
    #[error(
        "{0} holds hosts of a cluster, but the file cluster.json that says which is gone; put it back from a copy, or give \
         another folder"
    )]
    LostRecord(PathBuf),
    /// The cluster's keys are gone.
    #[error(
        "{0} is gone, which this cluster can't be without; put the folder pki back from a copy, or give another folder"
    )]
    LostKey(PathBuf),
    /// Another launcher runs on it.
    #[error("a cluster runs on {0} already; stop it first, or give another folder")]
    Locked(PathBuf),
    /// A file can't be read or written.
    #[error("can't write {path}: {why}; check its permissions and the space on the disk")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A key or a certificate.
    #[error(transparent)]
    Pki(#[from] pki::Error),
}
