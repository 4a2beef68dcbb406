//! HTTP's own: connections and what they may use up, bodies, queries, and the forms in which answers go out.

pub(crate) mod ahead;
pub(crate) mod annotations;
mod asked;
pub(crate) mod beside;
pub(crate) mod body;
pub(crate) mod compress;
pub(crate) mod connection;
pub(crate) mod encoding;
mod limits;
pub(crate) mod negotiate;
pub(crate) mod options;
pub(crate) mod outgoing;
pub(crate) mod patience;
pub(crate) mod query;
pub(crate) mod response;
pub(crate) mod socket;
mod strangers;
pub(crate) mod warnings;
pub(crate) mod websocket;

pub use limits::Limits;
pub use response::Body;

pub(crate) use asked::{Asked, Target, only_name};
pub(crate) use connection::Connection;
