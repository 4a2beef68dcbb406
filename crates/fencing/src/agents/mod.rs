//! Fence agents: programs that switch a machine off and say whether it is (ClusterLabs' `FenceAgentAPI.md`; Debian's `fence-agents`). They read
//! `key=value` lines from their input, and answer by their exit status.

mod book;
mod program;
mod secrets;

pub use book::{Book, Seen, Step};
pub use program::{Agent, Problem};
