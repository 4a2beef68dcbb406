//! nftables by netlink (`nfnetlink.h`, `nf_tables.h`): what is asked, and what the kernel answers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use tokio::io::unix::AsyncFd;

/// Numbers of Linux' `nfnetlink.h` and `nf_tables.h` that the C library's bindings lack or have in other types.
pub(super) mod number {
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
    pub const IPV4: u8 = 2;
    pub const PRE_ROUTING: u32 = 0;
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
    pub const EQUAL: u32 = 0;
    pub const NOT_EQUAL: u32 = 1;
    pub const DROP: u32 = 0;
    /// The name of the link by which a packet came in.
    pub const NAME_OF_LINK: u32 = 6;
    pub const NESTED: u16 = 1 << 15;
}

/// Something to change: which kind of message, its flags beside those that all have, its attributes.
pub(super) type Change = (u16, u16, Vec<u8>);

/// Makes changes as one transaction: all of them or none.
pub(super) fn transact(changes: &[Change]) -> io::Result<()> {
    let of_nftables = number::SUBSYSTEM.to_be_bytes();
    let mut messages = message(number::BATCH_BEGIN, 0, 0, of_nftables, &[]);
    for (sequence, (kind, flags, attributes)) in (1..).zip(changes) {
        messages.extend(message(*kind, *flags, sequence, [0; 2], attributes));
    }
    messages.extend(message(number::BATCH_END, 0, 0, of_nftables, &[]));
    let socket = ask(&messages)?;
    let mut unanswered = changes.len();
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

/// How many rules a chain has; none where there is no such chain.
pub(super) fn rules_of(table: &str, chain: &str) -> io::Result<u32> {
    let wanted = [text(1, table), text(3, chain)].concat();
    let socket = ask(&message(number::GET_CHAIN, 0, 0, [0; 2], &wanted))?;
    let mut buffer = [0; 8192];
    let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let mut rest = &buffer[..read];
    let is_refusal = rest.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
    let refusal = if is_refusal { answer(&mut rest) } else { None };
    match refusal {
        Some(code) if code == -libc::ENOENT => Ok(0),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        // The count of those that use the chain: its rules, where none jumps to it.
        None => {
            let count = find(rest.get(20..).unwrap_or_default(), 6).and_then(|count| count.try_into().ok());
            count.map(u32::from_be_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
    }
}

/// Hears that something changed in this namespace's nftables, whoever did it.
#[derive(Debug)]
pub(super) struct News(AsyncFd<OwnedFd>);

impl News {
    pub fn listen() -> io::Result<Self> {
        let socket = open(SockFlag::SOCK_NONBLOCK, 1 << (number::NEWS - 1))?;
        // SAFETY: it stays open, and the same, as long as the news are listened to.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(News(socket))
    }

    /// Waits for the next change.
    pub async fn next(&self) {
        loop {
            // It fails with the runtime alone: then nothing follows.
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            // That there was too much of it is news, too.
            if ready.try_io(|socket| take(socket.as_raw_fd())).is_ok() {
                return;
            }
        }
    }

    /// Forgets what is there already.
    pub fn forget(&self) {
        while take(self.0.as_raw_fd()).is_ok() {}
    }
}

fn take(socket: i32) -> io::Result<usize> {
    // What is said doesn't matter, and the rest of a message that is too long goes with it.
    Ok(recv(socket, &mut [0; 32], MsgFlags::empty())?)
}

fn open(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let kind = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, kind)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn ask(messages: &[u8]) -> io::Result<OwnedFd> {
    let socket = open(SockFlag::empty(), 0)?;
    // The kernel answers within the call; should it ever not, the host must go on all the same.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    sendto(socket.as_raw_fd(), messages, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(socket)
}

/// The code of the next answer in a buffer: 0, or what failed as a negative number.
fn answer(rest: &mut &[u8]) -> Option<i32> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let code = i32::from_ne_bytes(rest.get(16..20)?.try_into().ok()?);
    *rest = rest.get(length.max(20).next_multiple_of(4)..).unwrap_or_default();
    Some(code)
}

/// The value of an attribute among others.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?)).max(4);
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind & !number::NESTED == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// A part of a rule.
pub(super) fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, parts)])
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A number as the network has it.
pub(super) fn big(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

pub(super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | number::NESTED, &parts.concat())
}

fn message(kind: u16, flags: u16, sequence: u32, resource: [u8; 2], attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
    // Those without a number of their own get no answer that says "done".
    let answer = if sequence == 0 { 0 } else { libc::NLM_F_ACK as u16 };
    let flags = flags | answer | libc::NLM_F_REQUEST as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
    bytes.extend([number::IPV4, 0, resource[0], resource[1]]);
    bytes.extend_from_slice(attributes);
    bytes
}
