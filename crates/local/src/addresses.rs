//! Which addresses there are, and whose they are, in each kind of network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use config::{AddressRange, Ports};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most hosts that have addresses on one machine. How many can run is the store's to say.
pub const MOST_NODES: usize = 9;

/// The kind of network between the hosts of a cluster on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetKind {
    /// Each host in a network namespace of its own, with a link to a bridge.
    Netns,
    /// Each host an ordinary process on 127.0.n.1.
    Loopback,
}

impl NetKind {
    /// The name that the command line and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Loopback => "loopback",
        }
    }
}

impl fmt::Display for NetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NetKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "netns" => Ok(Self::Netns),
            "loopback" => Ok(Self::Loopback),
            other => Err(format!("no network is called {other:?}: use netns or loopback")),
        }
    }
}

/// The addresses of a cluster on one machine: functions of the kind of network and a host's number, which
/// counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    kind: NetKind,
}

impl Addresses {
    /// The port of the API, on every host and on the virtual address.
    pub const API_PORT: u16 = Ports::DEFAULT.api;
    /// The port of etcd's API, on every host.
    pub const ETCD_PORT: u16 = Ports::DEFAULT.etcd;
    /// The port on which the switch listens for announcements (loopback).
    pub const SWITCH_PORT: u16 = 2382;

    /// The switch's first port that leads to a member of the etcd that a cluster's state lies in.
    pub const DATASTORE_PORT: u16 = 23790;

    /// The addresses in a network of this kind.
    pub fn new(kind: NetKind) -> Self {
        Self { kind }
    }

    /// Where hosts reach the `members` members of an etcd outside: by the switch in namespaces, by their own names
    /// (so nothing is returned here) on loopback.
    pub fn datastore(self, members: usize) -> Vec<SocketAddr> {
        match self.kind {
            NetKind::Netns => (Self::DATASTORE_PORT..)
                .take(members)
                .map(|port| SocketAddr::new(self.switch().into(), port))
                .collect(),
            NetKind::Loopback => Vec::new(),
        }
    }

    /// The name of host `number`.
    pub fn host_name(number: u8) -> String {
        format!("n{number}")
    }

    /// The names of the hosts of a cluster of `nodes`, with their numbers.
    pub fn hosts(nodes: usize) -> impl Iterator<Item = (u8, String)> {
        (1..=nodes.min(MOST_NODES) as u8).map(|number| (number, Self::host_name(number)))
    }

    /// The address of host `number`.
    pub fn host(self, number: u8) -> Ipv4Addr {
        match self.kind {
            NetKind::Netns => Ipv4Addr::new(10, 73, 0, number),
            NetKind::Loopback => Ipv4Addr::new(127, 0, number, 1),
        }
    }

    /// The network that the hosts' addresses and the virtual address are in.
    pub fn host_cidr(self) -> IpNet {
        match self.kind {
            NetKind::Netns => IpNet::new_assert(Ipv4Addr::new(10, 73, 0, 0).into(), 24),
            NetKind::Loopback => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 16),
        }
    }

    /// The addresses of the pods of host `number`.
    pub fn pod_cidr(self, number: u8) -> IpNet {
        let (network, length) = self.pod_network(number);
        IpNet::new_assert(network.into(), length)
    }

    /// The network of the pods of host `number`, and the length of its prefix.
    pub fn pod_network(self, number: u8) -> (Ipv4Addr, u8) {
        match self.kind {
            NetKind::Netns => (Ipv4Addr::new(10, 244, number, 0), 24),
            NetKind::Loopback => (Ipv4Addr::new(127, number, 0, 0), 16),
        }
    }

    /// The addresses of all hosts' pods.
    pub fn cluster_cidr(self) -> IpNet {
        let (network, length) = self.pods();
        IpNet::new_assert(network.into(), length)
    }

    /// The network that the pods of all hosts are in, and the length of its prefix.
    pub fn pods(self) -> (Ipv4Addr, u8) {
        match self.kind {
            NetKind::Netns => (Ipv4Addr::new(10, 244, 0, 0), 16),
            NetKind::Loopback => (Ipv4Addr::new(127, 0, 0, 0), 8),
        }
    }

    /// The addresses of services.
    pub fn service_cidr(self) -> IpNet {
        match self.kind {
            NetKind::Netns => IpNet::new_assert(Ipv4Addr::new(10, 96, 0, 0).into(), 16),
            NetKind::Loopback => IpNet::new_assert(Ipv4Addr::new(127, 96, 0, 0).into(), 16),
        }
    }

    /// The first address of the services' range: the service `kubernetes`.
    pub fn first_service(self) -> Ipv4Addr {
        match self.kind {
            NetKind::Netns => Ipv4Addr::new(10, 96, 0, 1),
            NetKind::Loopback => Ipv4Addr::new(127, 96, 0, 1),
        }
    }

    /// The API's virtual address.
    pub fn virtual_address(self) -> Ipv4Addr {
        match self.kind {
            NetKind::Netns => Ipv4Addr::new(10, 73, 0, 100),
            NetKind::Loopback => Ipv4Addr::new(127, 0, 0, 100),
        }
    }

    /// The addresses that Services of type LoadBalancer get: 192 to 223 of the network that the virtual address is in.
    pub fn load_balancers(self) -> AddressRange {
        let [a, b, c, _] = self.virtual_address().octets();
        AddressRange { first: Ipv4Addr::new(a, b, c, 192), last: Ipv4Addr::new(a, b, c, 223) }
    }

    /// Where the API answers, whichever host leads.
    pub fn api(self) -> SocketAddr {
        (self.virtual_address(), Self::API_PORT).into()
    }

    /// The address of the switch: of this machine, as the hosts see it.
    pub fn switch(self) -> Ipv4Addr {
        match self.kind {
            NetKind::Netns => Ipv4Addr::new(10, 73, 0, 254),
            NetKind::Loopback => Ipv4Addr::new(127, 0, 0, 254),
        }
    }

    /// Where the switch listens for announcements.
    pub fn announcements(self) -> SocketAddr {
        (self.switch(), Self::SWITCH_PORT).into()
    }

    /// The addresses of all hosts by name.
    pub fn peers(self, nodes: usize) -> BTreeMap<String, IpAddr> {
        Self::hosts(nodes).map(|(number, name)| (name, self.host(number).into())).collect()
    }

    /// The hardware address of host `number`: the same after a power cut, as a machine's is.
    pub fn hardware(number: u8) -> [u8; 6] {
        [0x02, 0x48, 0x46, 0x00, 0x00, number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_architecture() {
        let netns = Addresses::new(NetKind::Netns);
        assert_eq!(netns.host(2).to_string(), "10.73.0.2");
        assert_eq!(netns.pod_cidr(2).to_string(), "10.244.2.0/24");
        assert_eq!(netns.api().to_string(), "10.73.0.100:6443");
        let loopback = Addresses::new(NetKind::Loopback);
        assert_eq!(loopback.host(2).to_string(), "127.0.2.1");
        assert_eq!(loopback.pod_cidr(2).to_string(), "127.2.0.0/16");
        assert_eq!(loopback.api().to_string(), "127.0.0.100:6443");
        assert_eq!(loopback.announcements().to_string(), "127.0.0.254:2382");
        assert_eq!(loopback.load_balancers().to_string(), "127.0.0.192/27");
        assert_eq!(netns.load_balancers().to_string(), "10.73.0.192/27");
    }

    #[test]
    fn peers_are_named_and_numbered_from_one() {
        let peers = Addresses::new(NetKind::Loopback).peers(3);
        assert_eq!(peers.keys().cloned().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        assert_eq!(peers["n3"].to_string(), "127.0.3.1");
    }

    #[test]
    fn a_network_is_known_by_its_name_alone() {
        assert_eq!("netns".parse(), Ok(NetKind::Netns));
        assert!("bridge".parse::<NetKind>().unwrap_err().contains("netns or loopback"));
    }
}
