//! The addresses that Services of type LoadBalancer get.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::check::Findings;
use crate::{HostConfig, NetConfig};

/// The most addresses in all: what is free is looked for one by one.
const MOST: u64 = 65_536;

/// Addresses that follow each other: a network, such as 10.73.0.192/27, or a first and a last one, such as 10.73.0.200-10.73.0.219.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, which is no smaller.
    pub last: Ipv4Addr,
}

impl AddressRange {
    fn network(&self) -> Option<Ipv4Net> {
        let size = u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1;
        let prefix = 32 - u8::try_from(size.trailing_zeros()).unwrap_or(32);
        let network = Ipv4Net::new(self.first, prefix).ok()?;
        (size.is_power_of_two() && network.trunc() == network).then_some(network)
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if (self.first..=self.last).contains(&v4))
    }

    fn meets(&self, network: IpNet) -> bool {
        match network {
            IpNet::V4(v4) => self.first <= v4.broadcast() && v4.network() <= self.last,
            IpNet::V6(_) => false,
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network() {
            Some(network) => network.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = match text.split_once('-') {
            Some((first, last)) => {
                let [first, last] = [first, last].map(|text| text.trim().parse::<Ipv4Addr>().ok());
                first.zip(last)
            }
            None => text
                .parse::<Ipv4Net>()
                .ok()
                .filter(|network| *network == network.trunc())
                .map(|network| (network.network(), network.broadcast())),
        };
        let range = range.filter(|(first, last)| first <= last);
        range.map(|(first, last)| AddressRange { first, last }).ok_or_else(|| {
            format!(
                "{text:?} are no addresses of IPv4; write a network such as 10.73.0.192/27, or the first and the last, such as 10.73.0.200-10.73.0.219"
            )
        })
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl HostConfig {
    /// The ranges of addresses for Services of type LoadBalancer, without those that the hosts' network has for itself: its own, and
    /// that of a broadcast.
    pub fn load_balancer_ranges(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let IpNet::V4(hosts) = self.host_cidr else { return Vec::new() };
        let next = |address: Ipv4Addr| Ipv4Addr::from(u32::from(address).saturating_add(1));
        let before = |address: Ipv4Addr| Ipv4Addr::from(u32::from(address).saturating_sub(1));
        let ranges = self.load_balancer_cidrs.iter().map(|range| {
            let first = if range.first == hosts.network() { next(range.first) } else { range.first };
            let last = if range.last == hosts.broadcast() { before(range.last) } else { range.last };
            (first, last)
        });
        ranges.filter(|(first, last)| first <= last).collect()
    }

    pub(crate) fn check_load_balancers(&self, findings: &mut Findings) {
        const FIELD: &str = "loadBalancerCidrs";
        let ranges = &self.load_balancer_cidrs;
        let size = |range: &AddressRange| u64::from(u32::from(range.last) - u32::from(range.first)) + 1;
        let all: u64 = ranges.iter().map(size).sum();
        let what = format!("{all} addresses are more than {MOST}");
        findings.require(all <= MOST, FIELD, what, "take smaller ranges");
        for (place, range) in ranges.iter().enumerate() {
            for other in
                ranges[..place].iter().filter(|other| range.first <= other.last && other.first <= range.last)
            {
                findings.problem(FIELD, format!("{range} overlaps {other}"), "list each address once");
            }
            // The pods of all hosts together may surround other networks, as they do on loopback.
            let pods = match self.net {
                NetConfig::Netns { .. } => ("clusterCidr", self.cluster_cidr),
                NetConfig::Loopback { .. } => ("podCidr", self.pod_cidr),
            };
            for (field, network) in [("serviceCidr", self.service_cidr), pods] {
                if range.meets(network) {
                    let what = format!("{range} overlaps {network}, which is {field}");
                    findings.problem(FIELD, what, "give each a range of its own");
                }
            }
            let hosts = self.peers.iter().map(|(name, address)| (name.as_str(), *address));
            let taken =
                hosts.chain([("this host", self.address)]).filter(|(_, address)| range.contains(*address));
            for (whose, address) in taken {
                let what = format!("{range} contains {address}, which is the address of {whose}");
                findings.problem(FIELD, what, "leave out what hosts have");
            }
            if range.contains(self.virtual_address) {
                let what = format!("{range} contains {}, which is virtualAddress", self.virtual_address);
                findings.problem(FIELD, what, "leave out the API's address: the leader holds it");
            }
            let is_near = [range.first, range.last]
                .iter()
                .all(|address| self.host_cidr.contains(&IpAddr::V4(*address)));
            if !is_near {
                findings.problem(
                    FIELD,
                    format!("{range} lies outside hostCidr, {}", self.host_cidr),
                    "an address can only move within the hosts' network: take addresses of it",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::config;

    fn with(ranges: &[&str]) -> HostConfig {
        HostConfig {
            load_balancer_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ..config()
        }
    }

    #[test]
    fn ranges_are_read_and_written_in_either_form() {
        for (text, first, last) in [
            ("10.73.0.192/27", "10.73.0.192", "10.73.0.223"),
            ("10.73.0.7/32", "10.73.0.7", "10.73.0.7"),
            ("10.73.0.200-10.73.0.219", "10.73.0.200", "10.73.0.219"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!((range.first.to_string(), range.last.to_string()), (first.into(), last.into()));
            assert_eq!(range.to_string(), text);
        }
        for wrong in ["", "10.73.0.192", "10.73.0.193/27", "10.73.0.9-10.73.0.1", "fd00::/120", "a-b"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_that_are_somebody_else_s_are_refused() {
        assert_eq!(with(&["10.73.0.192/27", "10.73.0.50-10.73.0.60"]).check(), Findings::default());
        for (ranges, told) in [
            (vec!["10.73.0.0/25"], "contains 10.73.0.1, which is the address of n1"),
            (vec!["10.73.0.3-10.73.0.9"], "contains 10.73.0.3, which is the address of n3"),
            (vec!["10.73.0.96/27"], "contains 10.73.0.100, which is virtualAddress"),
            (vec!["10.96.4.0/24"], "overlaps 10.96.0.0/16, which is serviceCidr"),
            (vec!["10.244.9.0/24"], "overlaps 10.244.0.0/16, which is clusterCidr"),
            (vec!["10.73.1.0/24"], "lies outside hostCidr, 10.73.0.0/24"),
            (vec!["10.73.0.192/27", "10.73.0.200-10.73.0.201"], "overlaps 10.73.0.192/27"),
            (vec!["10.0.0.0/8"], "16777216 addresses are more than 65536"),
        ] {
            let problems = with(&ranges).check().problems;
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(said.iter().all(|said| said.starts_with("loadBalancerCidrs: ")), "{said:?}");
            assert!(said.iter().any(|said| said.contains(told)), "{told}: {said:?}");
        }
    }

    #[test]
    fn the_ends_of_the_hosts_network_are_nobody_s() {
        let at = |last: u8| Ipv4Addr::new(10, 73, 0, last);
        let ranges = with(&["10.73.0.240/28", "10.73.0.20/32", "10.73.0.255/32"]).load_balancer_ranges();
        assert_eq!(ranges, [(at(240), at(254)), (at(20), at(20))]);
    }
}
