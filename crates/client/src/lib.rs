//! A small Kubernetes client: kubeconfig, requests, watches, discovery, apply.
//!
//! [`Kubeconfig`] says where the API server is and who asks; [`Client`] asks it: over pooled connections,
//! over a connection of its own each ([`Client::fresh`], for probes), or as a stream ([`Client::watch`],
//! [`Client::stream`]). [`Discovery`] finds a resource by whatever people call it, [`apply`] brings an object
//! of a manifest into the cluster the way `kubectl apply` does. It knows nothing of Holdfast: it asks any
//! Kubernetes.

mod apply;
mod client;
mod connection;
mod discovery;
mod error;
mod kubeconfig;
mod manifest;
mod path;
mod response;
mod schema;
mod three_way;
mod tls;
mod watch;

pub use apply::{Applied, apply};
pub use client::{Client, Content};
pub use connection::Stream;
pub use discovery::{Discovery, Resource};
pub use error::{Error, ServerStatus};
pub use kubeconfig::Kubeconfig;
pub use manifest::documents;
pub use path::with_query;
pub use response::{Answer, AskFailure, Response};
pub use watch::{Watch, WatchEvent, WatchKind};

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
