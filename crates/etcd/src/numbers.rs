//! The store's numbers as etcd's, which have a sign, and back.

use store::Revision;

/// A number as etcd says it.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that etcd says; none of those that it says is below zero.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A revision as etcd says it.
pub fn to_etcd(revision: Revision) -> i64 {
    signed(revision.0)
}

/// A revision that etcd says.
pub fn from_etcd(number: i64) -> Revision {
    Revision(unsigned(number))
}

/// The revision that a request asks for: etcd takes zero, and all below it, for none.
pub fn asked_for(number: i64) -> Option<Revision> {
    Some(from_etcd(number)).filter(|revision| *revision > Revision::ZERO)
}
