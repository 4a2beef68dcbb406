//! Fuzzing on a stable compiler: inputs are recorded requests and their parts, changed by chance with a seed, bytes by
//! bytes and as JSON trees. A [`Target`] panics where a law is broken; [`run`] catches that, and keeps the input.
//!
//! What an input costs is bounded too: the bytes that are allocated for it, in proportion to its own, and its
//! processor time. [`run_growing`] makes inputs of pieces that repeat, and finds those whose cost grows faster than
//! they do.
//!
//! `cargo test -p fuzz` runs each target for a bounded number of cases; the binary runs one for as long as is asked.

mod calls;
mod containers;
mod corpus;
mod cost;
mod definitions;
mod designs;
mod documents;
mod expressions;
mod files;
mod grow;
mod law;
mod mutate;
mod names;
mod requests;
mod run;
mod targets;
mod virtual_routers;
mod wire;

pub use calls::Calls;
pub use corpus::Corpus;
pub use grow::Growing;
pub use law::Law;
pub use requests::Requests;
pub use run::{Failure, Tally, run, run_growing};
pub use targets::{Target, targets};
