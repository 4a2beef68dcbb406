//! HTTP: listeners, who asks, what for, and in which form the answer goes out.

pub(crate) mod ahead;
mod apply;
mod backup;
pub(crate) mod beside;
mod body;
mod component_status;
mod compress;
pub(crate) mod connection;
mod discovery;
pub(crate) mod encoding;
mod health;
mod impersonate;
mod limits;
mod listener;
pub(crate) mod metrics;
pub(crate) mod negotiate;
mod objects;
pub(crate) mod openapi;
mod options;
pub(crate) mod outgoing;
pub(crate) mod query;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod serve;
mod socket;
mod strangers;
mod turn;
mod watch;
mod write;

pub use limits::Limits;
pub use listener::Listening;
pub use metrics::Measure;
pub use response::Body;

pub(crate) use connection::Connection;
pub(crate) use listener::listen;
