//! The server over a store in memory: against what was recorded from the real one, and for what a recording
//! can't show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod aggregation;
mod applied_versions;
mod auditing;
mod compare;
mod conformance;
mod connections;
mod conversion;
mod custom;
mod door;
mod edge;
mod encodings;
mod fairness;
mod hooks;
mod hosts;
mod house;
mod identities;
mod kinds;
mod known;
mod kubectl;
mod layers;
mod openapi;
mod outside_tokens;
mod policies;
mod policy_parameters;
mod proxy;
mod reads;
mod refusals;
mod replay;
mod roles;
mod self_signed;
mod sockets;
mod status;
mod streams;
mod tls;
mod tokens;
mod unread;
mod usage;
mod webhooks;
mod wording;
mod writes;
mod yaml;
