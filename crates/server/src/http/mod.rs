//! HTTP: listeners, who asks, what for, and in which form the answer goes out.

pub(crate) mod ahead;
mod apply;
mod backup;
mod body;
mod component_status;
mod compress;
mod discovery;
pub(crate) mod encoding;
mod health;
pub(crate) mod identity;
mod impersonate;
mod listener;
pub(crate) mod metrics;
pub(crate) mod negotiate;
mod objects;
pub(crate) mod openapi;
mod options;
pub(crate) mod query;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod serve;
mod watch;
mod write;

pub use identity::Identity;
pub use listener::{Limits, Listening};
pub use response::Body;

pub(crate) use listener::{Connection, listen};
