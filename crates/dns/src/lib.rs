//! Cluster DNS, on every host by itself, out of the state in memory: no other host and no pod is needed to find one.
//!
//! [`Records`] are the cluster's names, kept change by change without I/O. A [`Server`] answers questions by datagrams and
//! connections: from the records at once, from others' servers for all other names, with what they said remembered for as
//! long as it holds, and longer while they are gone. Who has appended the search domains of a pod to a name gets the answer
//! to the name that is meant. [`ResolvConf`] is what pods' resolvers read. Messages are read and written by
//! `hickory-proto`.

mod cache;
mod message;
mod metrics;
pub mod parts;
mod plan;
mod records;
mod resolv_conf;
mod resolver;
mod server;
mod upstream;

pub use metrics::Metrics;
pub use records::{Found, PodNames, Records, Zones};
pub use resolv_conf::{ResolvConf, machine_resolv_conf};
pub use server::{Error, Options, Server};

/// What all names of the cluster end with.
pub const DOMAIN: &str = "cluster.local";
/// The namespace of the service that pods ask, and its name: where tools look for it.
pub const NAMESPACE: &str = "kube-system";
/// See [`NAMESPACE`].
pub const NAME: &str = "kube-dns";
/// The port of DNS.
pub const PORT: u16 = 53;

/// The cluster's domain as a name.
pub fn domain() -> hickory_proto::rr::Name {
    // Of the constant above: its labels are short.
    hickory_proto::rr::Name::from_labels(DOMAIN.split('.').map(str::as_bytes)).unwrap_or_default()
}
