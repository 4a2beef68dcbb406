//! The API over HTTP: who you are, what you may, read, write, watch, discovery.
//!
//! A [`Server`] keeps objects in the store and answers for them: to requests from outside over TLS
//! ([`Server::listen`]), and to the parts of this process through [`Server::writer`], on the same path. It
//! also leads to pods, services and logs, wherever they are.

mod admission;
mod aggregation;
mod backend;
mod bootstrap;
mod catalog;
mod clock;
mod conversion;
mod definitions;
mod http;
mod proxy;
mod registry;
mod requests;
mod server;
mod usage;
mod webhook;

pub use access::{ClusterAuthority, RevocationList, Tokens, UserInfo, entry_key};
pub use admission::{ServiceRange, ServiceRangeError};
pub use aggregation::FrontProxy;
pub use backend::Backends;
pub use clock::{Edge, SystemEdge};
pub use http::{Body, Limits};
pub use requests::{Door, Measure, Overview, TokenReviewer, TurnedAway};
pub use server::{Listening, Options, Server};
