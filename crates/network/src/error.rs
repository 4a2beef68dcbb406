//! What can go wrong with the host's network.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why the network can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change.
    #[error("can't {action}: {why}; this takes the right to administer the network (CAP_NET_ADMIN)")]
    Netlink {
        /// What was to be done.
        action: String,
        /// What the kernel said.
        why: rtnetlink::Error,
    },
    /// A socket that everything else needs.
    #[error("can't open a socket to {what}: {why}")]
    Socket {
        /// What it is for.
        what: &'static str,
        /// What the system said.
        why: std::io::Error,
    },
    /// A setting of the kernel's, of this host's network.
    #[error("can't set {file}: {why}; pods' networks need it")]
    Setting {
        /// Which.
        file: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// Nobody would give the addresses of services up if this process hangs.
    #[error("can't start the keeper of addresses: {0}")]
    Keeper(std::io::Error),
    /// A pod's network namespace can't be entered.
    #[error("can't enter the network namespace of a pod: {0}")]
    Namespace(std::io::Error),
    /// Pods' addresses are of IPv4 alone.
    #[error("pods have networks of IPv4 alone, and {0} is none")]
    NotIpv4(IpNet),
    /// An address isn't one that ports of the host may be asked for at.
    #[error(
        "hostIP {address} is not an address of the host's own, but {what}: name one of its links' addresses, or none"
    )]
    NotForHostPorts {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// The host's link isn't there.
    #[error("there is no link {0} on this host: name one of those in /sys/class/net")]
    NoLink(String),
    /// The host isn't among those whose pods' networks are known.
    #[error("host {0} has no network for its pods: give it one among the hosts' networks")]
    UnknownHost(String),
    /// An address isn't in the network it should be in.
    #[error("{address} is not in {network}, the network of this host's pods")]
    ForeignAddress {
        /// The address.
        address: IpAddr,
        /// The network.
        network: IpNet,
    },
}
