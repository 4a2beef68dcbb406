//! SPDY/3.1, as far as Kubernetes speaks it: streams that the caller opens, each with headers, over one connection.
//! There is no flow control in it (no client of Kubernetes does any): a slow end slows the connection.

mod anything;
mod client;
mod connection;
mod dictionary;
mod frame;
mod headers;
mod sessions;
mod transport;

pub use anything::{read_spdy, spdy};
pub(crate) use client::{Ends, Remote, Wanted, connect};
pub(super) use sessions::{forward, process};
pub(super) use transport::Transport;
