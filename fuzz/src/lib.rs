//! Fuzzing on a stable compiler: inputs are recorded requests and their parts, changed by chance with a seed, bytes by
//! bytes and as JSON trees. A [`Target`] panics where a law is broken; [`run`] catches that, and keeps the input.
//!
//! `cargo test -p fuzz` runs each target for a bounded number of cases; the binary runs one for as long as it is told.

mod corpus;
mod definitions;
mod expressions;
mod mutate;
mod requests;
mod run;
mod targets;

pub use corpus::Corpus;
pub use requests::Requests;
pub use run::{Failure, Tally, run};
pub use targets::{Target, targets};
