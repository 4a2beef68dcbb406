//! The kinds, as data; and what their schemas can't say, one module a kind.

mod autoscaler;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod groups;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod newer_event;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod rules;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod volume_cells;
mod workload;

pub(crate) use daemon_set::TEMPLATE_GENERATION;
pub(crate) use groups::GROUPS;
pub(crate) use rules::{Plain, Rules};
