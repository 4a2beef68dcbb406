//! The same decision, made the plain way: all pods are looked at for each. What the crate keeps up to date is right as
//! long as both always agree.
#![allow(dead_code)]

mod affinity;
mod cluster;
mod filter;
mod request;
mod schedule;
mod spread;

pub use cluster::{Cluster, Host};
pub use schedule::schedule;
