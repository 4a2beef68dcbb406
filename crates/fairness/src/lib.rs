//! Fairness between clients (KEP-1040): every request is classed by the first FlowSchema that fits, runs on seats of
//! the schema's PriorityLevelConfiguration, and waits in one of that level's queues while there are none. So a client
//! that asks too much makes only itself wait.
//!
//! The classes decide what a [`Request`] is, and the gate, a function of what arrives and ends, and when, decides which
//! may start; [`Fairness`] is the driver around both. It knows nothing of HTTP. What differs from upstream: seats are
//! lent at once and come back with the next request that ends, where upstream moves them every ten seconds by what
//! levels needed before.

mod classes;
mod deal;
mod driver;
mod gate;
mod level;
mod metrics;
mod queues;
mod request;
mod rules;
mod work;

pub use driver::{Admitted, Class, Clock, Fairness, Refused};
pub use request::{Request, Target};
pub use work::seats;

#[cfg(test)]
mod simulated;
