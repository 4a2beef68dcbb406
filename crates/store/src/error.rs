//! What can go wrong between a caller and the store.

use crate::{LeaseId, MemberError, Revision};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No majority answered in time. A write may or may not have happened.
    #[error("the store did not answer in time: no majority of its members could be reached")]
    Unavailable,
    /// This process is shutting its store down.
    #[error("the store is shutting down")]
    Closed,
    /// A watch or an old snapshot was asked for at a revision that the history no longer holds.
    #[error("revision {asked} is compacted; the oldest one kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest one that can be asked for.
        oldest: Revision,
    },
    /// A revision was asked for that has not happened yet.
    #[error("revision {asked} is in the future; the newest one is {newest}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest one.
        newest: Revision,
    },
    /// A put named a lease that does not exist or ran out.
    #[error("lease {0} does not exist")]
    LeaseNotFound(LeaseId),
    /// A lease of the number that was asked for exists already.
    #[error("lease {0} exists already")]
    LeaseExists(LeaseId),
    /// A request that can never succeed: an empty key, a value or transaction over the limit.
    #[error("{0}")]
    Invalid(String),
    /// The disk is (nearly) full: writes are refused until there is room again.
    #[error("no room left on the store's disk: free some space under {0}, writes resume by themselves")]
    NoSpace(String),
    /// A change of the members was refused.
    #[error(transparent)]
    Members(#[from] MemberError),
    /// This member was removed from the cluster, or replaced.
    #[error("this member was removed from the cluster: it takes no part any more")]
    Removed,
    /// The store's folder can't be written: changes are refused until it can be again.
    #[error(
        "the store's folder {folder} can't be written ({why}): make it writable, writes resume by themselves"
    )]
    Sealed {
        /// The folder.
        folder: String,
        /// What the system said.
        why: String,
    },
}
