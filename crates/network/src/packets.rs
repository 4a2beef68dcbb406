//! What rules of nftables ask of a packet's addresses.

use ipnet::Ipv4Net;
use nftables::{compare, load_address, mask, number};

/// How long an address of IPv4 is, and what `nft` takes one in a set for.
pub(crate) const ADDRESS: usize = 4;
pub(crate) const ADDRESS_TYPE: u32 = 7;
/// Where the addresses of sender and receiver are in a packet's head.
pub(crate) const FROM: u32 = 12;
pub(crate) const TO: u32 = 16;

/// An address of the packet is in a network, or isn't.
pub(crate) fn within(offset: u32, network: Ipv4Net, comparison: u32) -> Vec<Vec<u8>> {
    vec![
        load_address(number::REGISTER, offset),
        mask(network.netmask().octets()),
        compare(comparison, &network.network().octets()),
    ]
}
