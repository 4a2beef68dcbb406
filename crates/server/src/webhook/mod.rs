//! Calling webhooks: those that a configuration names, always over TLS.

mod address;
mod client;
mod trust;

pub(crate) use client::{CallError, WebhookClient};
