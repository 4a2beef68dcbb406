//! Who the members are, as callers see them, and why a change of them was refused.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A member's number. It is never used twice, not even after the member was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u64);

impl MemberId {
    /// The number of no member, in Raft and in etcd's API too.
    pub const NONE: MemberId = MemberId(raft::INVALID_ID);
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member of the cluster as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// Its name; empty for one that was added without a name and has not come yet.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// Whether it only follows, without a vote.
    pub is_learner: bool,
    /// Whether it ever took part. One that was added is waited for until then.
    pub has_joined: bool,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it is this process.
    pub is_me: bool,
}

/// Why the members were not changed. Nothing is different then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is no such member (any more).
    #[error("there is no member {0}: look at the list of members")]
    NotFound(MemberId),
    /// There is one of this name.
    #[error("there is a member {0:?} already: remove it first, or choose another name")]
    NameTaken(String),
    /// There is one at this address.
    #[error("there is a member at {0} already: remove it first, or choose another address")]
    AddressTaken(SocketAddr),
    /// It votes already.
    #[error("member {0} is no learner: it votes already")]
    NotLearner(MemberId),
    /// It has not got everything yet.
    #[error("learner {0} is behind the leader or not there: wait until it has caught up")]
    Behind(MemberId),
    /// Another change is not finished.
    #[error("the members are being changed already: wait until that is done")]
    Busy,
    /// Too few of those that would vote are there.
    #[error(
        "with this change {there} of {voters} voting members would be there, and {needed} are needed: bring \
         the others back first"
    )]
    Quorum {
        /// How many of them are there.
        there: u64,
        /// How many would vote.
        voters: u64,
        /// How many of these must be there.
        needed: u64,
    },
    /// More would be of no use.
    #[error("{0} members are the most that there may be: remove one first")]
    TooMany(u64),
}
