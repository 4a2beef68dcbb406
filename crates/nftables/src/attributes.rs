//! What messages are made of: attributes, which are numbers with values, and parts of rules made of these.

/// Numbers of Linux' `nfnetlink.h` and `nf_tables.h` that the C library's bindings lack or have in other types.
#[allow(missing_docs, reason = "they are called as Linux calls them")]
pub mod number {
    pub const SUBSYSTEM: u16 = 10;
    pub const BATCH_BEGIN: u16 = 16;
    pub const BATCH_END: u16 = 17;
    pub const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
    pub const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
    pub const GET_CHAIN: u16 = (SUBSYSTEM << 8) | 4;
    pub const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
    pub const NEW_SET: u16 = (SUBSYSTEM << 8) | 9;
    pub const NEW_ELEMENTS: u16 = (SUBSYSTEM << 8) | 12;
    pub const DELETE_ELEMENTS: u16 = (SUBSYSTEM << 8) | 14;
    /// The group that hears of each change (`NFNLGRP_NFTABLES`).
    pub const NEWS: u32 = 7;
    pub const PRE_ROUTING: u32 = 0;
    /// Of IPv4's packets, and of a bridge's (`NF_BR_FORWARD`).
    pub const FORWARD: u32 = 2;
    pub const POST_ROUTING: u32 = 4;
    /// Before connections are tracked (`NF_IP_PRI_RAW`).
    pub const RAW: i32 = -300;
    /// Where sources are changed (`NF_IP_PRI_NAT_SRC`).
    pub const NAT_SOURCE: i32 = 100;
    /// The verdict's register, and two of 16 bytes each, one behind the other.
    pub const VERDICT: u32 = 0;
    pub const REGISTER: u32 = 1;
    pub const NEXT_REGISTER: u32 = 2;
    pub const NETWORK_HEADER: u32 = 1;
    pub const TRANSPORT_HEADER: u32 = 2;
    pub const EQUAL: u32 = 0;
    pub const NOT_EQUAL: u32 = 1;
    pub const LESS: u32 = 2;
    pub const DROP: u32 = 0;
    pub const ACCEPT: u32 = 1;
    /// The name of the link by which a packet came in, and goes out.
    pub const NAME_OF_LINK: u32 = 6;
    pub const NAME_OF_LINK_OUT: u32 = 7;
    /// Whether a packet is one of TCP, of UDP, or of what else.
    pub const PROTOCOL: u32 = 16;
    pub const NESTED: u16 = 1 << 15;
}

/// A part of a rule.
pub fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

/// A value with its number.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A name.
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A number as the network has it.
pub fn big(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// Attributes of an attribute.
pub fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | number::NESTED, &parts.concat())
}
