//! Who has an address on the switch: asked of all hosts at once by ARP, as every client's kernel does (RFC 826).

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
/// A kernel answers at once. What comes later may be from a host that got the address meanwhile.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Asks the hosts on a switch.
#[derive(Debug)]
pub struct WhoHas {
    socket: Socket,
    link: SockAddr,
    /// The switch's own addresses.
    hardware: [u8; 6],
    own: Ipv4Addr,
}

impl WhoHas {
    pub(crate) fn on(link: u32, hardware: [u8; 6], own: Ipv4Addr) -> io::Result<Self> {
        let kind = i32::from((libc::ETH_P_ARP as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(kind)))?;
        let link = link_address(link)?;
        socket.bind(&link)?;
        Ok(WhoHas { socket, link, hardware, own })
    }

    /// How many hosts say that they have the address. Takes `time`, of which all but the beginning is there to let time pass until the next question.
    ///
    /// # Errors
    /// What the system says.
    #[allow(clippy::disallowed_methods)] // A driver: it waits for answers.
    pub fn ask(&self, address: Ipv4Addr, time: Duration) -> io::Result<usize> {
        self.socket.send_to(&question(self.hardware, self.own, address), &self.link)?;
        let asked = Instant::now();
        let mut hosts = BTreeSet::new();
        let mut frame = [0; 64];
        loop {
            let left = time.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(hosts.len());
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match (&self.socket).read(&mut frame) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            if asked.elapsed() <= AT_ONCE {
                hosts.extend(answer(&frame[..length], self.hardware, address));
            }
        }
    }
}

fn question(hardware: [u8; 6], own: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let (own, address) = (own.octets(), address.octets());
    let parts: [&[u8]; 9] =
        [&BROADCAST, &hardware, &ETHERTYPE_ARP, &ETHERNET_IPV4, &REQUEST, &hardware, &own, &[0; 6], &address];
    parts.concat()
}

/// The hardware address of who says in a frame that the address is theirs. It must be meant for who asked: an announcement to all is no answer.
fn answer(frame: &[u8], hardware: [u8; 6], address: Ipv4Addr) -> Option<[u8; 6]> {
    let is_answer = frame.get(..6)? == hardware
        && frame.get(12..14)? == ETHERTYPE_ARP
        && frame.get(14..20)? == ETHERNET_IPV4
        && frame.get(20..22)? == REPLY
        && frame.get(28..32)? == address.octets();
    is_answer.then(|| frame.get(22..28)?.try_into().ok()).flatten()
}

/// The address of everybody on a link (packet(7)).
fn link_address(link: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(link).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    let mut all = [0; 8];
    all[..6].copy_from_slice(&BROADCAST);
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: all,
    };
    // SAFETY: the storage is zeroed, aligned for every kind of address and larger than a `sockaddr_ll`, which
    // is written whole; the length is set to its size.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: [u8; 6] = [2, 0x48, 0x46, 0, 0, 0xfe];
    const HOST: [u8; 6] = [2, 0x48, 0x46, 0, 0, 1];

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let address = Ipv4Addr::new(10, 73, 0, 100);
        let asked = question(SWITCH, Ipv4Addr::new(10, 73, 0, 254), address);
        assert_eq!(answer(&asked, SWITCH, address), None, "the question itself");
        let reply = [
            &SWITCH[..],
            &HOST,
            &ETHERTYPE_ARP,
            &ETHERNET_IPV4,
            &REPLY,
            &HOST,
            &address.octets(),
            &SWITCH,
            &[10, 73, 0, 254],
        ]
        .concat();
        assert_eq!(answer(&reply, SWITCH, address), Some(HOST));
        assert_eq!(answer(&reply, SWITCH, Ipv4Addr::new(10, 73, 0, 1)), None, "another address");
        let told = [&BROADCAST[..], &reply[6..]].concat();
        assert_eq!(answer(&told, SWITCH, address), None, "an announcement");
        for length in 0..32 {
            assert_eq!(answer(&reply[..length], SWITCH, address), None, "cut off");
        }
    }
}
