//! What is asked, and what the kernel answers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use tokio::io::unix::AsyncFd;

use crate::attributes::{number, text};

/// Whose packets rules are about (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Those of IPv4 that this namespace's own stack sees.
    Ipv4 = 2,
    /// Those of all protocols that pass a bridge of this namespace.
    Bridge = 7,
}

/// Something to change: which kind of message, its flags beside those that all have, its attributes.
pub type Change = (u16, u16, Vec<u8>);

/// Makes changes to one family's tables as one transaction: all of them or none.
///
/// # Errors
/// What the kernel says of the first that it refuses. `EOPNOTSUPP` and `ENOENT` for a table of a family that it doesn't have.
pub fn transact(family: Family, changes: &[Change]) -> io::Result<()> {
    let of_nftables = number::SUBSYSTEM.to_be_bytes();
    let mut messages = message(family, number::BATCH_BEGIN, 0, 0, of_nftables, &[]);
    for (sequence, (kind, flags, attributes)) in (1..).zip(changes) {
        messages.extend(message(family, *kind, *flags, sequence, [0; 2], attributes));
    }
    messages.extend(message(family, number::BATCH_END, 0, 0, of_nftables, &[]));
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
///
/// # Errors
/// What the kernel says.
pub fn rules_of(family: Family, table: &str, chain: &str) -> io::Result<u32> {
    let wanted = [text(1, table), text(3, chain)].concat();
    let socket = ask(&message(family, number::GET_CHAIN, 0, 0, [0; 2], &wanted))?;
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

/// Hears that something changed in this namespace's nftables, no matter which program changed it.
#[derive(Debug)]
pub struct News(AsyncFd<OwnedFd>);

impl News {
    /// From now on.
    ///
    /// # Errors
    /// What the kernel says.
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

fn message(
    family: Family,
    kind: u16,
    flags: u16,
    sequence: u32,
    resource: [u8; 2],
    attributes: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
    // Those without a number of their own get no answer that says "done".
    let answer = if sequence == 0 { 0 } else { libc::NLM_F_ACK as u16 };
    let flags = flags | answer | libc::NLM_F_REQUEST as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
    bytes.extend([family as u8, 0, resource[0], resource[1]]);
    bytes.extend_from_slice(attributes);
    bytes
}
