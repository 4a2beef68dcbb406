//! Where connections may lead in the cluster's name: what somebody writes into an EndpointSlice or a status must not
//! open what a host keeps to itself.
//!
//! Follows `IsProxyableIP` of `k8s.io/kubernetes/pkg/proxy/util` upstream, and adds what else leads nowhere else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::HostNetwork;

/// Where a machine in Amazon's network asks for its credentials by IPv6; by IPv4 it is a link-local address.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// The prefix by which a translator reaches IPv4 addresses (RFC 6052).
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Tells which addresses an endpoint may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    own: Vec<IpNet>,
}

impl Targets {
    /// Those of a cluster of these hosts: on a machine's loopback network, theirs and their pods' are the only ones there.
    pub fn new(hosts: &BTreeMap<String, HostNetwork>) -> Self {
        let own = hosts.values().flat_map(|host| [host.pods, host.address.into()]);
        Targets { own: own.collect() }
    }

    /// Whether a connection may lead to an address: neither to this host's own loopback network, nor to what only its
    /// link knows (where clouds keep a machine's credentials), nor to many at once or nobody.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        self.own.iter().any(|network| network.contains(&address)) || !is_special(address)
    }
}

/// The IPv4 address that an IPv6 one stands for, if it does.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let canonical = v6.to_canonical();
    if canonical.is_ipv6() && v6.segments().starts_with(&TRANSLATED) {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    canonical
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // "This network" as a whole: the system takes 0.0.0.0 for itself.
            let here = v4.octets()[0] == 0;
            here || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            // The deprecated way to write an IPv4 address; `::` and `::1` are among them.
            let compatible = v6.segments()[..6].iter().all(|part| *part == 0);
            compatible || v6.is_unicast_link_local() || v6.is_multicast() || v6 == METADATA
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: &[(&str, &str)]) -> Targets {
        let host = |(at, (address, pods)): (usize, &(&str, &str))| {
            let network = HostNetwork { address: address.parse().unwrap(), pods: pods.parse().unwrap() };
            (format!("n{at}"), network)
        };
        Targets::new(&hosts.iter().enumerate().map(host).collect())
    }

    #[test]
    fn what_a_host_keeps_to_itself_is_no_target() {
        let targets = of(&[("10.73.0.1", "10.244.1.0/24")]);
        for address in
            ["10.244.1.7", "10.73.0.1", "10.96.0.9", "93.184.216.34", "::ffff:10.244.1.7", "fd00::7"]
        {
            assert!(targets.allows(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.1.1.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(!targets.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_cluster_on_loopback_reaches_its_own_there_and_nobody_else() {
        let targets = of(&[("127.0.1.1", "127.1.0.0/16"), ("127.0.2.1", "127.2.0.0/16")]);
        for (address, allowed) in [
            ("127.1.1.1", true),
            ("::ffff:127.2.0.7", true),
            ("127.0.2.1", true),
            ("127.0.0.1", false),
            ("127.0.0.53", false),
            ("127.3.0.1", false),
            ("127.96.0.1", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(targets.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
