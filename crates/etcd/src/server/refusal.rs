//! What is refused, with the code and the words that etcd has for it (etcd's `rpctypes/error.go`): its
//! clients compare them.

use store::MemberError;

use crate::{Code, Status};

macro_rules! refusals {
    ($($name:ident: $code:ident, $message:literal;)*) => {
        $(pub fn $name() -> Status {
            Status::new(Code::$code, $message)
        })*
    };
}

refusals! {
    empty_key: InvalidArgument, "etcdserver: key is not provided";
    key_not_found: InvalidArgument, "etcdserver: key not found";
    value_provided: InvalidArgument, "etcdserver: value is provided";
    lease_provided: InvalidArgument, "etcdserver: lease is provided";
    too_many_ops: InvalidArgument, "etcdserver: too many operations in txn request";
    duplicate_key: InvalidArgument, "etcdserver: duplicate key given in txn request";
    too_large: InvalidArgument, "etcdserver: request is too large";
    compacted: OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    future_revision: OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    no_space: ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    lease_not_found: NotFound, "etcdserver: requested lease not found";
    lease_exists: FailedPrecondition, "etcdserver: lease already exists";
    ttl_too_large: OutOfRange, "etcdserver: too large lease TTL";
    timed_out: Unavailable, "etcdserver: request timed out";
    stopped: Unavailable, "etcdserver: server stopped";
    member_not_found: NotFound, "etcdserver: member not found";
    member_exists: FailedPrecondition, "etcdserver: member ID already exist";
    address_exists: FailedPrecondition, "etcdserver: Peer URLs already exists";
    not_learner: FailedPrecondition, "etcdserver: can only promote a learner member";
    learner_behind: FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    too_few_started: FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members";
    too_many_learners: FailedPrecondition, "etcdserver: too many learner members in cluster";
    bad_urls: InvalidArgument, "etcdserver: given member URLs are invalid";
    unhealthy: Unavailable, "etcdserver: unhealthy cluster";
}

/// What this store can't do though etcd can.
pub fn unimplemented(what: &str) -> Status {
    Status::new(Code::Unimplemented, what)
}

/// What it means that the store refuses.
pub fn by_store(error: store::Error) -> Status {
    match error {
        store::Error::Unavailable => timed_out(),
        store::Error::Closed => stopped(),
        store::Error::Compacted { .. } => compacted(),
        store::Error::Future { .. } => future_revision(),
        store::Error::LeaseNotFound(_) => lease_not_found(),
        store::Error::LeaseExists(_) => lease_exists(),
        store::Error::NoSpace(_) | store::Error::Sealed { .. } => no_space(),
        // Empty keys are refused before: what remains is a request over the store's own limit.
        store::Error::Invalid(_) => too_large(),
        store::Error::Removed => stopped(),
        store::Error::Members(why) => by_members(why),
    }
}

fn by_members(error: MemberError) -> Status {
    match error {
        MemberError::NotFound(_) => member_not_found(),
        MemberError::NameTaken(_) => member_exists(),
        MemberError::AddressTaken(_) => address_exists(),
        MemberError::NotLearner(_) => not_learner(),
        MemberError::Behind(_) => learner_behind(),
        MemberError::Quorum { .. } => too_few_started(),
        MemberError::TooMany(_) => too_many_learners(),
        MemberError::Busy => unhealthy(),
    }
}
