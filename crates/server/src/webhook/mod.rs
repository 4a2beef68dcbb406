//! Calling webhooks: whoever a configuration names, over TLS always.

mod address;
mod client;
mod trust;

pub(crate) use client::{CallError, Client};
