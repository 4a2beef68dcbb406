//! Services through the in-process proxy, pod addresses, virtual addresses.
//!
//! [`Services`] is what the store says about who serves what; [`Balancer`] turns it, with who is silent, into
//! the order in which backends are tried: both without I/O. [`Network`] drives them: it listens for every
//! Service, passes connections on, makes the host's addresses its own by netlink (or announces them to the
//! switch of a cluster on loopback) and holds the API's virtual address while this host leads.

mod announce;
mod arp;
mod balancer;
mod cidr;
mod dial;
mod dropped;
mod error;
mod follow;
mod frontends;
mod keeper;
mod listen;
mod netlink;
mod network;
mod proxy;
mod services;
mod targets;
mod virtual_address;

pub use balancer::{Balancer, Scope};
pub use cidr::Cidr;
pub use error::Error;
pub use listen::listen_before_held;
pub use network::{HostNetwork, Mode, Network, Options};
pub use services::{Backend, PortId, Protocol, ServicePort, Services};
pub use targets::Targets;
