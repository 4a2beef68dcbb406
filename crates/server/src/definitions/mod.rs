//! Looks after CustomResourceDefinitions where this member leads: which names they get, and what becomes of their objects
//! when they go.

mod api_services;
mod cleanup;
mod driver;

pub(crate) use driver::keep;
