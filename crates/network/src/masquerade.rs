//! The way of pods to what is outside of the cluster: nobody there knows where their addresses are, so what they send there goes
//! out in the host's name. One rule in a table of nftables of our own, which is put in place as a whole: `nft list table ip holdfast`.

use std::io;
use std::os::fd::AsRawFd;

use ipnet::{IpNet, Ipv4Net};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Error;

/// The table's name, and its chain's.
const TABLE: &str = "holdfast";
const CHAIN: &str = "pods";
/// Where the addresses of sender and receiver are in a packet's head.
const FROM: u32 = 12;
const TO: u32 = 16;

/// Numbers of Linux' `nfnetlink.h` and `nf_tables.h` that the C library's bindings lack or have in other types.
mod number {
    pub const SUBSYSTEM: u16 = 10;
    pub const BATCH_BEGIN: u16 = 16;
    pub const BATCH_END: u16 = 17;
    pub const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
    pub const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
    pub const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
    pub const IPV4: u8 = 2;
    pub const POST_ROUTING: u32 = 4;
    /// Where sources are changed (`NF_IP_PRI_NAT_SRC`).
    pub const PRIORITY: u32 = 100;
    pub const REGISTER: u32 = 1;
    pub const NETWORK_HEADER: u32 = 1;
    pub const EQUAL: u32 = 0;
    pub const NOT_EQUAL: u32 = 1;
    pub const NESTED: u16 = 1 << 15;
}

/// Sends what pods of the network `pods` say to anybody but the networks `inside` in this host's name.
///
/// # Errors
/// If the kernel has no nftables, or refuses.
pub(crate) fn put(pods: IpNet, inside: &[IpNet]) -> Result<(), Error> {
    let failed =
        |why| Error::Setting { file: "the rule by which pods reach what is outside (nftables)".into(), why };
    let only_v4 = |network: &IpNet| match network {
        IpNet::V4(v4) => Some(v4.trunc()),
        IpNet::V6(_) => None,
    };
    let Some(own) = only_v4(&pods) else { return Ok(()) };
    let inside: Vec<Ipv4Net> = inside.iter().filter_map(only_v4).collect();
    carry_out(&batch(own, &inside)).map_err(failed)
}

/// What the kernel is asked, as one transaction: all of it or nothing. Here and below attributes are numbers of `nf_tables.h`,
/// each in the order of what it is of: 1 the table's name, 3 the chain's, and so on.
fn batch(pods: Ipv4Net, inside: &[Ipv4Net]) -> Vec<Vec<u8>> {
    let create = libc::NLM_F_CREATE as u16;
    let table = || text(1, TABLE);
    // That it is there is no condition of its removal then.
    let ask = [
        (number::NEW_TABLE, create, table()),
        (number::DELETE_TABLE, 0, table()),
        (number::NEW_TABLE, create, table()),
        (
            number::NEW_CHAIN,
            create,
            [
                table(),
                text(3, CHAIN),
                nested(4, &[big(1, number::POST_ROUTING), big(2, number::PRIORITY)]),
                text(7, "nat"),
            ]
            .concat(),
        ),
        (
            number::NEW_RULE,
            create | libc::NLM_F_APPEND as u16,
            [table(), text(2, CHAIN), nested(4, &rule(pods, inside))].concat(),
        ),
    ];
    let of_nftables = number::SUBSYSTEM.to_be_bytes();
    let mut messages = vec![message(number::BATCH_BEGIN, 0, 0, 0, of_nftables, &[])];
    for (sequence, (kind, flags, attributes)) in (1..).zip(&ask) {
        messages.push(message(*kind, *flags, sequence, number::IPV4, [0; 2], attributes));
    }
    messages.push(message(number::BATCH_END, 0, 0, 0, of_nftables, &[]));
    messages
}

/// From `pods`, to none of `inside`: in the name of the link by which it goes out.
fn rule(pods: Ipv4Net, inside: &[Ipv4Net]) -> Vec<Vec<u8>> {
    let mut parts = within(FROM, pods, number::EQUAL);
    for network in inside {
        parts.extend(within(TO, *network, number::NOT_EQUAL));
    }
    parts.push(expression("masq", &[]));
    parts
}

/// An address of the packet is in a network, or isn't.
fn within(offset: u32, network: Ipv4Net, comparison: u32) -> Vec<Vec<u8>> {
    let value = |kind: u16, bytes: [u8; 4]| nested(kind, &[attribute(1, &bytes)]);
    vec![
        expression(
            "payload",
            &[big(1, number::REGISTER), big(2, number::NETWORK_HEADER), big(3, offset), big(4, 4)],
        ),
        expression(
            "bitwise",
            &[
                big(1, number::REGISTER),
                big(2, number::REGISTER),
                big(3, 4),
                value(4, network.netmask().octets()),
                value(5, [0; 4]),
            ],
        ),
        expression(
            "cmp",
            &[big(1, number::REGISTER), big(2, comparison), value(3, network.network().octets())],
        ),
    ]
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A number as the network has it.
fn big(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | number::NESTED, &parts.concat())
}

fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: [u8; 2],
    attributes: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
    // Those without a number of their own are not answered.
    let answer = if sequence == 0 { 0 } else { libc::NLM_F_ACK as u16 };
    let flags = flags | answer | libc::NLM_F_REQUEST as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
    bytes.extend([family, 0, resource[0], resource[1]]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// Sends a batch and hears the answer to each of its questions; the first refusal is returned.
fn carry_out(messages: &[Vec<u8>]) -> io::Result<()> {
    let kind = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // The kernel answers within the call; should it ever not, the host must start all the same.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    sendto(socket.as_raw_fd(), &messages.concat(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut unanswered = messages.len().saturating_sub(2);
    let mut buffer = [0; 8192];
    while unanswered > 0 {
        let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..read];
        while let Some(code) = answer(&mut rest) {
            match code {
                0 => unanswered -= 1,
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
            if unanswered == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// The code of the next answer in a buffer: 0, or what failed as a negative number.
fn answer(rest: &mut &[u8]) -> Option<i32> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let code = i32::from_ne_bytes(rest.get(16..20)?.try_into().ok()?);
    *rest = rest.get(length.max(20).next_multiple_of(4)..).unwrap_or_default();
    Some(code)
}

#[cfg(test)]
mod tests;
