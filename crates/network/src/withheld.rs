//! Callers of an address that this host is about to give up. A connection ends where its address goes, so one that begins now would be
//! broken off a moment later; and one that is left without an answer is tried again by its caller's kernel only after a second (RFC 6298).
//! So its first packet is kept, and is sent to whoever has the address next: to its caller it took a little longer.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH,
    BPF_RET, BPF_W, SKF_NET_OFF,
};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// The most callers that are passed on; the kernel has room for about a quarter of them.
const MOST: usize = 1024;
/// More than any packet that begins a connection: two headers of 60 bytes, and what Fast Open puts behind them.
const LONGEST: usize = 2048;

/// Where in the header of TCP its flags and its checksum are, and the flags (RFC 9293, section 3.1).
const FLAGS: u32 = 13;
const CHECKSUM: usize = 16;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// Where in the header of IPv4 its sender is, and behind that its receiver (RFC 791, section 3.1).
const SENDER: usize = 12;

/// Callers that are kept waiting.
#[derive(Debug)]
pub struct Withheld {
    address: SocketAddrV4,
    /// It hears what comes for the address.
    callers: Socket,
}

/// Takes no more connections on `listener`, and keeps those who call. What has begun goes on, and so do programs of this host itself, which
/// call from the address that they call. Nothing is withheld, and all goes on as before, for an address of IPv6.
///
/// # Errors
/// What the system says: it takes the right to use raw sockets (CAP_NET_RAW).
pub fn withhold(listener: &TcpListener) -> io::Result<Option<Withheld>> {
    let SocketAddr::V4(address) = listener.local_addr()? else { return Ok(None) };
    let kind = Type::RAW.nonblocking().cloexec();
    let callers = Socket::new(Domain::IPV4, kind, Some(Protocol::TCP))?;
    callers.attach_filter(&program(&to_call(address.port())))?;
    callers.bind(&SocketAddr::from(address).into())?;
    // Last: who calls between the two is heard by both, and by nobody the other way round.
    SockRef::from(listener).attach_filter(&program(&but_callers(*address.ip())))?;
    Ok(Some(Withheld { address, callers }))
}

impl Withheld {
    /// Sends those who called on, once the address isn't this host's any more. The kernel keeps them until it knows who has it.
    ///
    /// # Errors
    /// What the system says; the callers will call again then.
    pub fn pass_on(self) -> io::Result<()> {
        // What is sent brings its own header of IP (raw(7)).
        let kind = Type::RAW.nonblocking().cloexec();
        let way = Socket::new(Domain::IPV4, kind, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let to = SocketAddr::from((*self.address.ip(), 0)).into();
        let mut buffer = [0; LONGEST];
        for _ in 0..MOST {
            let length = match (&self.callers).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if complete(&mut buffer[..length]).is_some() {
                way.send_to(&buffer[..length], &to)?;
            }
        }
        Ok(())
    }
}

/// Puts the checksum of TCP in. Between namespaces of one machine packets come without: a network card would make it.
fn complete(packet: &mut [u8]) -> Option<()> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let addresses: [u8; 8] = packet.get(SENDER..SENDER + 8)?.try_into().ok()?;
    let segment = packet.get_mut(header..)?;
    segment.get_mut(CHECKSUM..CHECKSUM + 2)?.fill(0);
    let length = u16::try_from(segment.len()).ok()?.to_be_bytes();
    // RFC 9293, section 3.1: of what is there, and of a pretended header before it.
    let pretended = [&addresses[..], &[0, libc::IPPROTO_TCP as u8], &length].concat();
    let words = pretended.chunks(2).chain(segment.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    // Twice: the first carry may make another one (RFC 1071).
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(())
}

/// One step of a filter (Linux' networking/filter): what it does, how many steps it leaves out if a comparison fails, and a number.
type Step = (u32, u8, u32);

const TAKEN: Step = (BPF_RET | BPF_K, 0, u32::MAX);
const DROPPED: Step = (BPF_RET | BPF_K, 0, 0);

fn program(steps: &[Step]) -> Vec<SockFilter> {
    let step = |(what, otherwise, number): &Step| {
        // All of them are below 256.
        SockFilter::new(*what as u16, 0, *otherwise, *number)
    };
    steps.iter().map(step).collect()
}

/// Of the packets with their header of IP: those that call a port.
fn to_call(port: u16) -> [Step; 8] {
    [
        (BPF_LDX | BPF_B | BPF_MSH, 0, 0),
        (BPF_LD | BPF_H | BPF_IND, 0, 2),
        (BPF_JMP | BPF_JEQ | BPF_K, 4, port.into()),
        (BPF_LD | BPF_B | BPF_IND, 0, FLAGS),
        (BPF_ALU | BPF_AND | BPF_K, 0, SYN | ACK),
        (BPF_JMP | BPF_JEQ | BPF_K, 1, SYN),
        TAKEN,
        DROPPED,
    ]
}

/// Of the packets from their header of TCP on: those that don't call, and those that come from `own`.
fn but_callers(own: Ipv4Addr) -> [Step; 7] {
    [
        (BPF_LD | BPF_B | BPF_ABS, 0, FLAGS),
        (BPF_ALU | BPF_AND | BPF_K, 0, SYN),
        (BPF_JMP | BPF_JEQ | BPF_K, 2, SYN),
        (BPF_LD | BPF_W | BPF_ABS, 0, SKF_NET_OFF as u32 + SENDER as u32),
        (BPF_JMP | BPF_JEQ | BPF_K, 1, own.to_bits()),
        TAKEN,
        DROPPED,
    ]
}

#[cfg(test)]
mod tests;
