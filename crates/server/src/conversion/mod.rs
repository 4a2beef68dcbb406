//! Stored objects in the version in which they are wanted, by the rules of their definition or by its webhook.

mod converted;
mod converter;
mod served;

pub(crate) use converter::{Converter, by_webhook};
pub(crate) use served::{is_as_served, is_in_place, served};
