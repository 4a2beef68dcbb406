//! Heartbeats: which hosts are alive, and since when.
//!
//! Every host sends every other one a signed datagram 20 times a second; a host that is not heard for a quarter
//! of a second is silent. Where datagrams don't arrive, beats go by streams (`streams`). [`Tally`] decides that, without I/O; [`HeartbeatDriver`] is its driver, on a thread of its
//! own, so that work elsewhere in the process delays no beat.
//!
//! Silence is a guess, which is free to take back. That a host is *fenced* is a fact: it has stopped what must not run twice, since its
//! [`lease`] is over.

mod beat;
mod driver;
mod error;
mod heard;
mod hosts;
pub mod lease;
mod leasing;
mod memory;
mod options;
mod page;
mod streams;
mod tally;

pub use driver::{HeartbeatDriver, boottime};
pub use error::Error;
pub use heard::{LastHeard, Solitude};
pub use hosts::{Hosts, Liveness};
pub use leasing::Lease;
pub use options::Options;
pub use page::LeasePage;
pub use tally::{HostChange, Refused, Tally};

/// What reads bytes from outside, for those who look for mistakes in it: a program has no use for these.
pub mod parts {
    pub use crate::beat::{heartbeat, heartbeat_in};
}
