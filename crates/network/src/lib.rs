//! Services through the in-process proxy, pod addresses, virtual addresses.
//!
//! [`Directory`] works out what a change in the store, or of who is silent, changes for callers of services: as data,
//! without I/O. A service backend puts such changes into effect; today that is the in-process proxy, which listens for
//! every Service and asks [`Balancer`] for the order in which endpoints are tried. [`Network`] drives them: it
//! makes the host's addresses its own by netlink (or announces them to the switch of a cluster on loopback) and
//! holds the API's virtual address while this host leads, and addresses of services while its lease says so. What hosts send that are
//! fenced is dropped ([`CutOff`]). [`PodLinks`] connects
//! networks of pods' own to the host. [`VirtualRouters`] has a part in virtual routers, whose decisions the room `vrrp` makes.

mod address_keeper;
mod announce;
mod arp;
mod backend;
mod balancer;
mod dial;
mod dropped;
mod error;
mod farewell;
mod fenced;
mod follow;
mod frontends;
mod held_addresses;
mod host_ports;
mod keeper;
mod listen;
mod neighbours;
mod netlink;
mod network;
mod on_link;
mod packets;
mod pod_links;
mod proxy;
mod remains;
mod services;
mod targets;
mod virtual_address;
mod virtual_routers;
mod withheld;

pub use address_keeper::run_address_keeper;
pub use balancer::{Balancer, Scope};
pub use error::Error;
pub use fenced::CutOff;
pub use held_addresses::{LoadBalancing, give_up_former};
pub use host_ports::HostPort;
pub use listen::listen_before_held;
pub use network::{Answered, HostNetwork, Mode, Network, Options};
pub use pod_links::PodLinks;
pub use remains::Remains;
pub use services::{
    Directory, Endpoint, Hint, Hints, PortId, Protocol, Served, ServiceChange, ServiceId, ServicePort,
    Services,
};
pub use targets::Targets;
pub use virtual_address::Company;
pub use virtual_routers::VirtualRouters;
pub use withheld::{Withheld, withhold};
