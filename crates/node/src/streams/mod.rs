//! What goes both ways: commands beside a container, its own input and output, connections to its ports. Over
//! WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io` and what was before, and a tunnel for SPDY: KEP-4006) and over SPDY/3.1.

mod answer;
mod asked;
mod attach;
mod exec;
mod forward;
mod outcome;
mod session;
mod spdy;
mod websocket;

pub(crate) use answer::answer;
pub(crate) use outcome::Outcome;
pub(crate) use spdy::{Ends, Remote, Wanted as WantedStreams, connect as connect_streams};
pub use spdy::{read_spdy, spdy};
