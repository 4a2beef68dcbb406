//! The kinds, as data; and what their schemas can't say, one module a kind.

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod groups;
mod lease;
mod namespace;
mod node;
mod pod;
mod replica_set;
mod rules;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod workload;

pub(crate) use groups::GROUPS;
pub(crate) use rules::{Plain, Rules};
