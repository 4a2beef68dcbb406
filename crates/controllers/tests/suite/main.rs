//! The controllers over the real write path, step by step and with their driver: one program, so that it is linked once.
#![allow(clippy::unwrap_used)]

mod agents;
mod attachments;
mod autoscalers;
mod certificates;
mod cluster;
mod convergence;
mod cron_jobs;
mod daemon_sets;
mod daemons_rolling;
mod declared;
mod deployments;
mod dice;
mod disruption;
mod driver;
mod endpoints;
mod eviction;
mod flows;
mod garbage;
mod hints;
mod hosts;
mod job_policies;
mod jobs;
mod namespaces;
mod nodes;
mod pod_gc;
mod replication;
mod rolling;
mod scale;
mod simulation;
mod stateful_claims;
mod stateful_identity;
mod stateful_sets;
mod upkeep;
mod validating_policies;
mod volumes;
