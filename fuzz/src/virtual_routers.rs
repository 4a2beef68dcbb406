//! What virtual routers say to each other, as a raw socket hands it out: from anybody on the link.

use std::net::Ipv4Addr;

use rand::Rng;
use rand::rngs::StdRng;
use vrrp::Advert;
use vrrp::packet::{GROUP, PROTOCOL, TTL};

use crate::corpus::Corpus;
use crate::grow::{self, Growing};
use crate::mutate;

/// IP's header, without options.
const HEADER: usize = 20;

fn packet(rng: &mut StdRng) -> Vec<u8> {
    let from = Ipv4Addr::from(rng.random::<u32>());
    let addresses = (0..rng.random_range(0..20)).map(|_| Ipv4Addr::from(rng.random::<u32>())).collect();
    let centiseconds = [0, 1, 100, 4095, u16::MAX][rng.random_range(0..5)];
    let advert = Advert { router_id: rng.random(), priority: rng.random(), centiseconds, addresses };
    let message = advert.write(from);
    let total = ((HEADER + message.len()) as u16).to_be_bytes();
    let head = [0x45, 0xc0, total[0], total[1], 0, 0, 0, 0, TTL, PROTOCOL, 0, 0];
    [&head[..], &from.octets(), &GROUP.octets(), &message].concat()
}

pub(crate) fn make(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let bytes = packet(rng);
    if rng.random_range(0..3) == 0 {
        return bytes;
    }
    let others = packet(rng);
    mutate::bytes(rng, bytes, &others)
}

pub(crate) fn grow(rng: &mut StdRng, _: &Corpus) -> Growing {
    let bytes = packet(rng);
    grow::bytes(rng, &bytes)
}

pub(crate) fn read(input: &[u8]) {
    if let Ok((from, advert)) = Advert::read(input) {
        let again = advert.write(from);
        let message = &input[input.len() - again.len()..];
        // But for the checksum, in which 0 has two forms, and four bits that are ignored.
        let compared =
            |message: &[u8]| [&message[..4], &[message[4] & 0x0f, message[5]], &message[8..]].concat();
        assert_eq!(compared(&again), compared(message), "one advertisement has one form");
        assert!(advert.router_id != 0 && !advert.interval().is_zero() && !advert.addresses.is_empty());
    }
}
