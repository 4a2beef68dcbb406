//! What a key remembers of its own decisions.

use std::time::Instant;

use crate::autoscaler::Pace;

/// What a key remembers of its own decisions while this member leads.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Notes {
    /// Nothing.
    #[default]
    Nothing,
    /// What an autoscaler recommended, and when.
    Pace(Pace),
    /// The uid of the Node that was seen under this name.
    Node(String),
    /// The version of the Lease by which an address is offered to a host, and since when it is seen here.
    Offer(String, Instant),
    /// Since when the Node of a host that holds addresses is missed here.
    Missed(Instant),
}

impl Notes {
    pub(crate) fn pace(&self) -> Option<&Pace> {
        match self {
            Notes::Pace(pace) => Some(pace),
            _ => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Notes::Node(uid) => Some(uid),
            _ => None,
        }
    }

    /// Since when a Node is missed.
    pub(crate) fn missed(&self) -> Option<Instant> {
        match self {
            Notes::Missed(since) => Some(*since),
            _ => None,
        }
    }

    /// Since when an offer is seen, if it is of this version.
    pub(crate) fn offered(&self, version: &str) -> Option<Instant> {
        match self {
            Notes::Offer(seen, since) if seen == version => Some(*since),
            _ => None,
        }
    }
}
