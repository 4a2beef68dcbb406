//! Which filters there are: the chains of nftables, asked of the kernel by netlink (nfnetlink, linux/netfilter/nf_tables.h).

use std::fmt;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::text;
use crate::facts::{Chain, Filter};

/// NFNL_SUBSYS_NFTABLES and NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN.
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
/// NFTA_CHAIN_TABLE, _NAME, _HOOK, _POLICY, and NFTA_HOOK_HOOKNUM within the third.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// NF_INET_LOCAL_IN and NF_DROP.
const INPUT: u32 = 1;
const DROP: u32 = 0;
/// NLA_TYPE_MASK: the highest bits of an attribute's type say what is in it.
const TYPE: u16 = 0x3fff;
/// NFPROTO_INET, NFPROTO_IPV4 and NFPROTO_IPV6: in other families the number of a hook means something else.
const INTERNET: [u8; 3] = [1, 2, 10];
/// The headers of a message (linux/netlink.h) and of what is about netfilter (linux/netfilter/nfnetlink.h).
const HEADER: usize = 16;
const GENERAL: usize = 4;
/// What the kernel sends at once at most.
const LARGEST: usize = 64 << 10;
/// More than a machine with thousands of services has; a kernel that goes on for ever isn't waited for.
const MOST_MESSAGES: usize = 10_000;

/// Why the filters can't be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Error {
    /// The kernel has no nftables.
    Missing,
    /// Something else.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing => f.write_str("the kernel has no nftables"),
            Error::Failed(why) => f.write_str(why),
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            // Nobody answers for netfilter, or nobody in it for nftables.
            Errno::EPROTONOSUPPORT | Errno::EINVAL => Error::Missing,
            Errno::EPERM => Error::Failed("only root may see them".into()),
            other => Error::Failed(other.desc().into()),
        }
    }
}

/// All chains of this network.
pub(super) fn filter() -> Result<Filter, Error> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    sendto(socket.as_raw_fd(), &question(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let (mut filter, mut buffer) = (Filter::default(), vec![0; LARGEST]);
    for _ in 0..MOST_MESSAGES {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..length], &mut filter.chains)? {
            return Ok(filter);
        }
    }
    Err(Error::Failed("there are more than can be read".into()))
}

fn question() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + GENERAL);
    message.extend(((HEADER + GENERAL) as u32).to_ne_bytes());
    message.extend(GET_CHAIN.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    // Number and port, which a single question needs not.
    message.extend([0; 8]);
    // All families, version 0.
    message.extend([0; GENERAL]);
    message
}

/// Takes the chains out of what came; whether it was the end.
fn read(mut bytes: &[u8], chains: &mut Vec<Chain>) -> Result<bool, Error> {
    while bytes.len() >= HEADER {
        let length = number(bytes, 0).map_or(0, |length| length as usize);
        if length < HEADER || length > bytes.len() {
            return Err(Error::Failed("the kernel's answer can't be understood".into()));
        }
        let (message, kind) = (&bytes[..length], u16::from_ne_bytes([bytes[4], bytes[5]]));
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = number(message, HEADER).map_or(0, |code| (code as i32).wrapping_neg());
                if code != 0 {
                    return Err(Errno::from_raw(code).into());
                }
            }
            _ if kind == NEW_CHAIN => chains.extend(chain(&message[HEADER..])),
            _ => {}
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

fn chain(body: &[u8]) -> Option<Chain> {
    let family = *body.first()?;
    let (mut chain, mut hook, mut policy) =
        (Chain { table: String::new(), name: String::new(), drops_input: false }, None, None);
    for (kind, value) in attributes(body.get(GENERAL..)?) {
        match kind {
            TABLE => chain.table = word(value),
            NAME => chain.name = word(value),
            HOOK => {
                hook =
                    attributes(value).find(|(kind, _)| *kind == HOOK_NUMBER).and_then(|(_, value)| big(value))
            }
            POLICY => policy = big(value),
            _ => {}
        }
    }
    chain.drops_input = INTERNET.contains(&family) && hook == Some(INPUT) && policy == Some(DROP);
    Some(chain)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

fn number(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?))
}

/// nftables' numbers are in the network's order.
fn big(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn word(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// The tables of iptables' older form, which have nothing to do with nftables.
pub(super) fn old_tables() -> Vec<String> {
    let files = ["ip_tables_names", "ip6_tables_names"];
    let names = files.iter().filter_map(|file| text(format!("/proc/self/net/{file}")));
    let mut names: Vec<String> =
        names.flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [((value.len() + 4) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn chains_are_read_and_what_is_none_ends_the_reading() {
        let of = |family: u8, hook: u32, policy: u32| {
            // NLA_F_NESTED.
            let hook = attribute(HOOK | 0x8000, &attribute(HOOK_NUMBER, &hook.to_be_bytes()));
            let parts = [
                attribute(TABLE, b"filter\0"),
                attribute(NAME, b"INPUT\0"),
                hook,
                attribute(POLICY, &policy.to_be_bytes()),
            ];
            message(NEW_CHAIN, &[vec![family, 0, 0, 0], parts.concat()].concat())
        };
        let mut chains = Vec::new();
        let all = [of(2, INPUT, DROP), of(2, INPUT, 1), of(2, 2, DROP), of(7, INPUT, DROP)].concat();
        assert_eq!(read(&all, &mut chains), Ok(false));
        let drops: Vec<bool> = chains.iter().map(|chain| chain.drops_input).collect();
        assert_eq!(drops, [true, false, false, false], "accepted, forwarded, and a bridge's");
        assert_eq!((chains[0].table.as_str(), chains[0].name.as_str()), ("filter", "INPUT"));
        assert_eq!(read(&message(libc::NLMSG_DONE as u16, &[0; 4]), &mut chains), Ok(true));
        let refused = message(libc::NLMSG_ERROR as u16, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&refused, &mut chains), Err(Error::Failed("only root may see them".into())));
        let unknown = message(libc::NLMSG_ERROR as u16, &(-libc::EINVAL).to_ne_bytes());
        assert_eq!(read(&unknown, &mut chains), Err(Error::Missing));
        for cut in 0..all.len() {
            let _ = read(&all[..cut], &mut Vec::new());
        }
    }

    #[test]
    fn a_policy_of_dropping_is_seen_in_the_kernel() {
        let found = std::thread::spawn(|| {
            if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return Err("this user may not make a network of their own");
            }
            let drop = Command::new("iptables").args(["-P", "INPUT", "DROP"]).output();
            match filter() {
                _ if !drop.is_ok_and(|drop| drop.status.success()) => {
                    Err("iptables isn't there, or doesn't work")
                }
                Ok(filter) if filter.chains.is_empty() => Err("iptables is of the older form"),
                found => Ok(found),
            }
        });
        match found.join().unwrap() {
            Err(why) => testing::skip("iptables", why),
            Ok(found) => {
                let chains = found.unwrap().chains;
                let dropping: Vec<&str> = chains
                    .iter()
                    .filter(|chain| chain.drops_input)
                    .map(|chain| chain.name.as_str())
                    .collect();
                assert_eq!(dropping, ["INPUT"]);
            }
        }
    }
}
