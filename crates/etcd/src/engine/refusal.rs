//! What etcd refuses, in the store's words.

use store::{Error, LeaseId};

use crate::{Code, Status};

/// What a failed call means to the store's caller.
pub fn error(status: Status, lease: LeaseId) -> Error {
    match status.code {
        Code::NotFound if status.message.contains("lease") => Error::LeaseNotFound(lease),
        Code::ResourceExhausted if status.message.contains("database space exceeded") => {
            Error::NoSpace("etcd (compact and defragment it, then end its NOSPACE alarm)".into())
        }
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Error::Invalid(status.message),
        Code::ResourceExhausted if status.message.contains("larger than max") => {
            Error::Invalid(status.message)
        }
        _ => {
            tracing::warn!(%status, "etcd did not do what it was asked");
            Error::Unavailable
        }
    }
}

/// Whether a call that failed surely did nothing and may be made again.
pub fn did_nothing(status: &Status) -> bool {
    // etcd says both before it proposes anything to its members: the one where it looks at the header `hasleader`
    // (`api/v3rpc/interceptor.go`), the other in `processInternalRaftRequestOnce` (`etcdserver/v3_server.go`).
    let refused_first = ["etcdserver: no leader", "etcdserver: too many requests"];
    refused_first.iter().any(|message| status.message.contains(message))
}

/// Whether a revision is asked for that etcd has forgotten.
pub fn is_compacted(status: &Status) -> bool {
    status.code == Code::OutOfRange && status.message.contains("compacted")
}
