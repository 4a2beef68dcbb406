//! The one message of VRRP: the advertisement (RFC 9568, section 5), in an IPv4 packet as a raw socket hands it out.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The number of the protocol in IP's header.
pub const PROTOCOL: u8 = 112;
/// Whom advertisements are sent to.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// What every advertisement must arrive with: no router has passed it on, so it comes from this link.
pub const TTL: u8 = 255;
/// What IP's header says about urgency, "internetwork control", as keepalived sends it.
pub const TOS: u8 = 0xc0;
/// The most bytes that an advertisement has, with the longest header of IP: a buffer of this size holds any.
pub const LARGEST: usize = 60 + FIXED + 4 * 255;

/// Version 3, type 1: advertisement. There is no other type.
const VERSION_AND_TYPE: u8 = 0x31;
/// The bytes before the addresses.
const FIXED: usize = 8;
/// The shortest header of IP.
const SHORTEST_HEADER: usize = 20;
/// The interval is a number of 12 bits.
const INTERVAL_BITS: u16 = 0x0fff;

/// What a master says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// Which virtual router it is master of.
    pub router_id: u8,
    /// Its priority; 0: it gives up.
    pub priority: u8,
    /// How often it says so, in hundredths of a second: 1 to 4095.
    pub centiseconds: u16,
    /// The virtual router's addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Why a packet is no advertisement that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It ends too early, or goes on after its end.
    #[error("its length is not what it says")]
    Length,
    /// Its header isn't one of IPv4 with VRRP in it.
    #[error("it is no VRRP in IPv4")]
    Header,
    /// A router has passed it on, or somebody elsewhere pretends.
    #[error("its TTL is {0} and not 255: it comes from beyond this link")]
    Ttl(u8),
    /// It wasn't sent to all routers of the link.
    #[error("it was sent to {0} and not to 224.0.0.18")]
    Destination(Ipv4Addr),
    /// Its version is another one.
    #[error("its version is {0} and not 3")]
    Version(u8),
    /// It isn't an advertisement.
    #[error("its type {0} is unknown")]
    Type(u8),
    /// It was damaged.
    #[error("its checksum is wrong")]
    Checksum,
    /// A field says what can't be.
    #[error("its {0} is 0")]
    Zero(&'static str),
}

impl Advert {
    /// The message, with the checksum for the way from `from` to [`GROUP`]. Of the addresses, the first 255 have room.
    pub fn write(&self, from: Ipv4Addr) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let interval = (self.centiseconds & INTERVAL_BITS).to_be_bytes();
        let mut message = Vec::with_capacity(FIXED + 4 * usize::from(count));
        message.extend([VERSION_AND_TYPE, self.router_id, self.priority, count]);
        message.extend(interval);
        message.extend([0, 0]);
        for address in self.addresses.iter().take(count.into()) {
            message.extend(address.octets());
        }
        let checksum = checksum(&message, from);
        message[6..8].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    /// Reads a packet as a raw socket hands it out, IP's header first, and checks all that section 7.1 asks for and can be checked
    /// without knowing the virtual routers. Answers who sent it.
    ///
    /// # Errors
    /// [`Invalid`]; such a packet counts as not received.
    pub fn read(packet: &[u8]) -> Result<(Ipv4Addr, Advert), Invalid> {
        let (header, rest) = packet.split_first_chunk::<SHORTEST_HEADER>().ok_or(Invalid::Length)?;
        let length = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || length < SHORTEST_HEADER || header[9] != PROTOCOL {
            return Err(Invalid::Header);
        }
        if usize::from(u16::from_be_bytes([header[2], header[3]])) != packet.len() {
            return Err(Invalid::Length);
        }
        let message = rest.get(length - SHORTEST_HEADER..).ok_or(Invalid::Length)?;
        if header[8] != TTL {
            return Err(Invalid::Ttl(header[8]));
        }
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let (from, to) = (address(12), address(16));
        if to != GROUP {
            return Err(Invalid::Destination(to));
        }
        Ok((from, Self::read_message(message, from)?))
    }

    fn read_message(message: &[u8], from: Ipv4Addr) -> Result<Advert, Invalid> {
        let (fixed, addresses) = message.split_first_chunk::<FIXED>().ok_or(Invalid::Length)?;
        let [version_and_type, router_id, priority, count, high, low, _, _] = *fixed;
        if version_and_type >> 4 != VERSION_AND_TYPE >> 4 {
            return Err(Invalid::Version(version_and_type >> 4));
        }
        if version_and_type != VERSION_AND_TYPE {
            return Err(Invalid::Type(version_and_type & 0x0f));
        }
        if addresses.len() != 4 * usize::from(count) {
            return Err(Invalid::Length);
        }
        if checksum(message, from) != 0 {
            return Err(Invalid::Checksum);
        }
        // Four bits beside the interval are to be ignored.
        let centiseconds = u16::from_be_bytes([high, low]) & INTERVAL_BITS;
        for (value, name) in
            [(u16::from(router_id), "virtual router's number"), (count.into(), "number of addresses")]
        {
            if value == 0 {
                return Err(Invalid::Zero(name));
            }
        }
        // A backup waits for multiples of it: it would wait for nothing, and want to be master at once and for ever.
        if centiseconds == 0 {
            return Err(Invalid::Zero("interval"));
        }
        let (addresses, _) = addresses.as_chunks::<4>();
        let addresses = addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect();
        Ok(Advert { router_id, priority, centiseconds, addresses })
    }

    /// How often the master says so.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.centiseconds) * 10)
    }
}

/// The checksum of RFC 1071 over the message and what version 3 puts before it: addresses, protocol and length. Over a message with
/// its right checksum it is 0.
fn checksum(message: &[u8], from: Ipv4Addr) -> u16 {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let before = [&from.octets()[..], &GROUP.octets(), &[0, PROTOCOL], &length].concat();
    // Both have an even length: no word lies across.
    let words = before.chunks(2).chain(message.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    // Folded twice, the sum of 600 words has 16 bits.
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What keepalived 2.2.7 sent: router 51, priority 100, every 0.2 s, two addresses.
    const RECORDED: [u8; 36] = [
        0x45, 0xc0, 0x00, 0x24, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0xd0, 0x4c, 0x0a, 0x49, 0x00, 0x01, 0xe0,
        0x00, 0x00, 0x12, 0x31, 0x33, 0x64, 0x02, 0x00, 0x14, 0x6a, 0xe2, 0x0a, 0x49, 0x00, 0x32, 0x0a, 0x49,
        0x00, 0x33,
    ];
    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 1);

    fn recorded() -> Advert {
        let addresses = vec![Ipv4Addr::new(10, 73, 0, 50), Ipv4Addr::new(10, 73, 0, 51)];
        Advert { router_id: 51, priority: 100, centiseconds: 20, addresses }
    }

    /// A packet around a message, as the kernel makes it.
    fn packet(message: &[u8], from: Ipv4Addr) -> Vec<u8> {
        let mut packet = RECORDED[..20].to_vec();
        packet.extend(message);
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[12..16].copy_from_slice(&from.octets());
        packet
    }

    #[test]
    fn what_keepalived_sends_is_read_and_written_byte_for_byte() {
        assert_eq!(Advert::read(&RECORDED), Ok((SENDER, recorded())));
        assert_eq!(recorded().write(SENDER), RECORDED[20..]);
        assert_eq!(recorded().interval(), Duration::from_millis(200));
    }

    #[test]
    fn what_doesn_t_count_is_refused_with_the_reason() {
        let with = |at: usize, byte: u8| {
            let mut packet = RECORDED;
            packet[at] = byte;
            Advert::read(&packet).unwrap_err()
        };
        assert_eq!(with(0, 0x44), Invalid::Header, "a header of 16 bytes");
        assert_eq!(with(0, 0x65), Invalid::Header, "IPv6");
        assert_eq!(with(0, 0x4f), Invalid::Length, "a header longer than the packet");
        assert_eq!(with(3, 0x23), Invalid::Length);
        assert_eq!(with(8, 254), Invalid::Ttl(254));
        assert_eq!(with(9, 17), Invalid::Header, "UDP");
        assert_eq!(with(19, 0x13), Invalid::Destination(Ipv4Addr::new(224, 0, 0, 19)));
        assert_eq!(with(20, 0x21), Invalid::Version(2));
        assert_eq!(with(20, 0x32), Invalid::Type(2));
        assert_eq!(with(22, 101), Invalid::Checksum);
        assert_eq!(with(12, 11), Invalid::Checksum, "another sender: it is in the checksum");
        assert_eq!(with(23, 1), Invalid::Length);
        assert_eq!(with(23, 3), Invalid::Length);
        for (advert, field) in [
            (Advert { router_id: 0, ..recorded() }, "virtual router's number"),
            (Advert { centiseconds: 0, ..recorded() }, "interval"),
            (Advert { addresses: vec![], ..recorded() }, "number of addresses"),
        ] {
            let packet = packet(&advert.write(SENDER), SENDER);
            assert_eq!(Advert::read(&packet), Err(Invalid::Zero(field)));
        }
        for length in 0..RECORDED.len() {
            assert!(Advert::read(&RECORDED[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn four_reserved_bits_are_ignored() {
        let mut message = recorded().write(SENDER);
        message[4] |= 0xf0;
        message[6..8].fill(0);
        let right = checksum(&message, SENDER);
        message[6..8].copy_from_slice(&right.to_be_bytes());
        assert_eq!(Advert::read(&packet(&message, SENDER)), Ok((SENDER, recorded())));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            router_id in 1_u8..,
            priority: u8,
            centiseconds in 1_u16..=0xfff,
            addresses in proptest::collection::vec(any::<u32>(), 1..=255),
            from: u32,
        ) {
            let addresses = addresses.into_iter().map(Ipv4Addr::from).collect();
            let advert = Advert { router_id, priority, centiseconds, addresses };
            let from = Ipv4Addr::from(from);
            let packet = packet(&advert.write(from), from);
            prop_assert!(packet.len() <= LARGEST);
            prop_assert_eq!(Advert::read(&packet), Ok((from, advert)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Advert::read(&bytes);
        }
    }
}
