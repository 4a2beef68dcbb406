//! CustomResourceDefinitions: what they add to what is served, here and now; and, where this member leads, which
//! names they get, and what becomes of their objects when they go.

mod api_services;
mod cleanup;
mod driver;
mod known;

pub(crate) use known::{Definitions, Known};
