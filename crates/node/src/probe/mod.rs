//! Probes and hooks: what is asked of a container, when, and what the answers mean.

mod check;
mod grpc_health;
mod http;
mod prober;
mod schedule;

pub(crate) use check::{Check, Target};
pub(crate) use prober::{Finding, Past, probe_container};
