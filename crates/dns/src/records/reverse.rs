//! Names of addresses: `in-addr.arpa` and `ip6.arpa`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;

use super::find::{Asked, turned};
use super::{Found, Owner, Records};

/// What a name below `in-addr.arpa` or `ip6.arpa` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reversed {
    /// An address, or the network that all names below have theirs in.
    network: IpNet,
    /// Whether there is more before the address, which is no part of one.
    is_below: bool,
}

impl Reversed {
    /// Nothing of a name that stands for no address.
    fn of(labels: &[&str]) -> Option<Self> {
        let (rest, family) = match labels {
            [rest @ .., "in-addr", "arpa"] => (rest, 4),
            [rest @ .., "ip6", "arpa"] => (rest, 6),
            _ => return None,
        };
        let parts = rest.iter().rev();
        let (address, bits, used) = if family == 4 {
            let octets: Vec<u8> = parts.take(4).map_while(|label| octet(label)).collect();
            let mut bytes = [0; 4];
            bytes[..octets.len()].copy_from_slice(&octets);
            (IpAddr::from(Ipv4Addr::from(bytes)), 8 * octets.len(), octets.len())
        } else {
            let nibbles: Vec<u8> = parts.take(32).map_while(|label| nibble(label)).collect();
            let mut bytes = [0_u8; 16];
            for (at, nibble) in nibbles.iter().enumerate() {
                bytes[at / 2] |= if at % 2 == 0 { nibble << 4 } else { *nibble };
            }
            (IpAddr::from(Ipv6Addr::from(bytes)), 4 * nibbles.len(), nibbles.len())
        };
        let network = IpNet::new(address, bits as u8).ok()?;
        Some(Reversed { network, is_below: used < rest.len() })
    }

    /// The address, if it is a whole one.
    fn address(&self) -> Option<IpAddr> {
        let is_whole = self.network.prefix_len() == self.network.max_prefix_len() && !self.is_below;
        is_whole.then(|| self.network.addr())
    }
}

fn octet(label: &str) -> Option<u8> {
    // Only one way to write each: no zeros in front, no sign.
    label.parse::<u8>().ok().filter(|octet| octet.to_string() == label)
}

fn nibble(label: &str) -> Option<u8> {
    u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1 && label != "+")
}

impl Records {
    pub(super) fn in_reverse(&self, asked: Asked<'_>, labels: &[&str]) -> Found {
        let Some(reversed) = Reversed::of(labels) else { return Found::Outside };
        let ours = self.zones.networks.iter().find(|network| network.contains(&reversed.network));
        let names = reversed.address().map(|address| self.names_of(address)).unwrap_or_default();
        let zone = ours.and_then(|network| zone_of(*network, reversed.network.addr()));
        match zone {
            // An endpoint outside of the cluster's networks has a name of ours as well.
            None if asked.wants(RecordType::PTR) && !names.is_empty() => {}
            None => return Found::Outside,
            Some((zone, bits)) => {
                let depth = reversed.network.prefix_len();
                if reversed.is_below || depth < bits {
                    return Found::Nothing(self.authority(&zone));
                }
                if depth == bits && depth < reversed.network.max_prefix_len() {
                    return self.apex(asked, &zone);
                }
                if depth < reversed.network.max_prefix_len() {
                    return Found::NamesBelow(self.authority(&zone));
                }
                if names.is_empty() {
                    return Found::Nothing(self.authority(&zone));
                }
                if !asked.wants(RecordType::PTR) {
                    return Found::OtherTypes(self.authority(&zone));
                }
            }
        }
        let records = turned(names, asked.turn).map(|name| asked.record(RData::PTR(PTR(name))));
        Found::Records(records.collect(), Vec::new())
    }

    /// A Service's own address has its name; the address of endpoints has the names of those.
    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let Some(owners) = self.reverse.get(&address) else { return Vec::new() };
        let services = owners.iter().filter(|owner| owner.endpoint.is_none());
        let names: Vec<Name> = services.filter_map(|owner| self.name_of(owner)).collect();
        if !names.is_empty() {
            return names;
        }
        let heard = owners.iter().filter(|owner| !self.is_silent_at(owner, address));
        heard.filter_map(|owner| self.name_of(owner)).collect()
    }

    fn name_of(&self, owner: &Owner) -> Option<Name> {
        let (namespace, service) = &owner.service;
        // Of slices without their Service nothing has a name.
        self.namespaces.get(namespace)?.services.get(service)?.spec.as_ref()?;
        let labels = owner.endpoint.iter().chain([service, namespace]).map(|label| label.as_bytes());
        let name = Name::from_labels(labels.chain([b"svc".as_slice()])).ok()?;
        name.append_domain(&self.zones.domain).ok()
    }

    fn is_silent_at(&self, owner: &Owner, address: IpAddr) -> bool {
        let (namespace, service) = &owner.service;
        let service = self.namespaces.get(namespace).and_then(|known| known.services.get(service));
        let (Some(service), Some(name)) = (service, &owner.endpoint) else { return true };
        let places = service.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints = places.iter().filter_map(|place| service.endpoints.get(*place));
        endpoints.all(|endpoint| endpoint.address != address || self.is_silent(endpoint))
    }
}

/// The zone in which an address of a network has its name: zones are cut between labels, networks anywhere. Also how many bits
/// of the address its name says.
fn zone_of(network: IpNet, address: IpAddr) -> Option<(Name, u8)> {
    let (labels, bits): (Vec<String>, u8) = match address {
        IpAddr::V4(v4) => {
            let count = usize::from(network.prefix_len().div_ceil(8));
            let octets = v4.octets().into_iter().take(count).map(|octet| octet.to_string());
            let octets = octets.collect::<Vec<_>>().into_iter().rev();
            (octets.chain(["in-addr".into()]).collect(), 8 * count as u8)
        }
        IpAddr::V6(v6) => {
            let count = usize::from(network.prefix_len().div_ceil(4));
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let nibbles: Vec<String> = nibbles.take(count).map(|nibble| format!("{nibble:x}")).collect();
            (nibbles.into_iter().rev().chain(["ip6".into()]).collect(), 4 * count as u8)
        }
    };
    let labels = labels.iter().map(|label| label.as_bytes());
    Some((Name::from_labels(labels.chain([b"arpa".as_slice()])).ok()?, bits))
}
