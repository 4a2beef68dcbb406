//! Why a member could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("the store's configuration is wrong: {0}")]
    Config(String),
    /// The data folder can't be read or written.
    #[error("the store's folder {folder} can't be used")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("the store's folder {0} is in use by another process: stop that one, or choose another folder")]
    InUse(PathBuf),
    /// The folder holds the data of something else.
    #[error(
        "the store's folder {folder} belongs to {found}, not to {wanted}: choose another folder, or the \
         configuration that the folder was made with"
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose data it holds.
        found: String,
        /// Whose data it should hold.
        wanted: String,
    },
    /// What is on the disk is not what was written.
    #[error(
        "the store's file {file} is damaged at byte {offset} ({what}): move the folder that it lies in away and \
         start this member again, then it joins the others anew and gets everything from them"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The member was removed from the cluster, or replaced by a new one.
    #[error(
        "the member whose data lies in {0} was removed from the cluster: move the folder away and start this \
         member again, then it joins the others anew"
    )]
    Removed(PathBuf),
    /// The folder is empty, no cluster is to begin in it, and there is nobody to join.
    #[error(
        "the store's folder {0} is empty, though its member has taken part in a cluster, and no other member is \
         named that could let it in again: put its data back, or name another member"
    )]
    Alone(PathBuf),
    /// The others won't let this member in.
    #[error("the cluster does not let this member in: {by} says that {why}")]
    NotLetIn {
        /// The member that says so.
        by: String,
        /// Why.
        why: String,
    },
    /// The members' port can't be listened on.
    #[error("the store can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("the store could not start a thread: {0}")]
    Thread(io::Error),
}
