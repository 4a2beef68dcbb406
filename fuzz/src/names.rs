//! Messages of DNS: what callers ask, and what others' servers answer.

use rand::Rng;
use rand::rngs::StdRng;

use crate::corpus::Corpus;
use crate::grow::{self, Growing};
use crate::mutate;

/// Types of records: those with names in them, which may point anywhere, and others.
const KINDS: [u16; 14] = [1, 28, 2, 5, 6, 12, 15, 16, 33, 35, 41, 64, 65, 255];

/// A name: of the cluster, of an address, or of anybody; or a pointer to the one of the question.
fn name(rng: &mut StdRng) -> Vec<u8> {
    let text = [
        "web.shop.svc.cluster.local",
        "_http._tcp.web.shop.svc.cluster.local",
        "10-244-1-7.shop.pod.cluster.local",
        "7.0.96.10.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "www.example.com",
        "",
    ][rng.random_range(0..7)];
    if rng.random_range(0..4) == 0 {
        return vec![0xc0, 12];
    }
    let labels = text.split('.').filter(|label| !label.is_empty());
    let written = labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    written.chain([0]).collect()
}

fn kind(rng: &mut StdRng) -> [u8; 2] {
    KINDS[rng.random_range(0..KINDS.len())].to_be_bytes()
}

fn record(rng: &mut StdRng) -> Vec<u8> {
    let kind = kind(rng);
    let data = match u16::from_be_bytes(kind) {
        1 => vec![192, 0, 2, 1],
        28 => vec![0; 16],
        2 | 5 | 12 => name(rng),
        6 => [name(rng), name(rng), vec![0; 20]].concat(),
        15 => [vec![0, 1], name(rng)].concat(),
        16 => vec![3, b'a', b'b', b'c'],
        33 => [vec![0, 1, 0, 2, 0, 53], name(rng)].concat(),
        64 | 65 => [vec![0, 1], name(rng), vec![0, 3, 0, 2, 1, 187]].concat(),
        _ => mutate::word(rng).as_bytes().to_vec(),
    };
    let seconds = [0, 5, u32::MAX][rng.random_range(0..3)].to_be_bytes();
    let length = (data.len() as u16).to_be_bytes();
    [&*name(rng), &kind, &[0, 1], &seconds, &length, &data].concat()
}

/// The record of EDNS, with an option.
fn edns(rng: &mut StdRng) -> Vec<u8> {
    let payload = [0, 512, 1232, u16::MAX][rng.random_range(0..4)].to_be_bytes();
    [&[0, 0, 41][..], &payload, &[0, 0, 0x80, 0, 0, 6, 0, 10, 0, 2, 7, 7]].concat()
}

fn message(rng: &mut StdRng, flags: [u8; 2], answers: usize) -> Vec<u8> {
    let has_edns = rng.random::<bool>();
    let counts = [0, 1, 0, answers as u8, 0, 0, 0, u8::from(has_edns)];
    let mut first = name(rng);
    while first.len() == 2 {
        first = name(rng);
    }
    let mut bytes = [&[0x12, 0x67][..], &flags, &counts, &first, &kind(rng), &[0, 1]].concat();
    (0..answers).for_each(|_| bytes.extend(record(rng)));
    if has_edns {
        bytes.extend(edns(rng));
    }
    bytes
}

fn bent(rng: &mut StdRng, bytes: Vec<u8>) -> Vec<u8> {
    if rng.random_range(0..4) == 0 {
        return bytes;
    }
    let others = bytes.clone();
    mutate::bytes(rng, bytes, &others)
}

pub(crate) fn make_question(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let asked = message(rng, [1, 0], 0);
    bent(rng, asked)
}

pub(crate) fn grow_question(rng: &mut StdRng, _: &Corpus) -> Growing {
    let asked = message(rng, [1, 0], 0);
    grow::bytes(rng, &asked)
}

pub(crate) fn question(input: &[u8]) {
    assert_eq!(dns::parts::question(input), Ok(()));
}

pub(crate) fn make_answer(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let answers = rng.random_range(0..6);
    let answer = message(rng, [0x81, 0x80], answers);
    bent(rng, answer)
}

/// One of more and more records: each may have names of its own, and the counts say as many.
pub(crate) fn grow_answer(rng: &mut StdRng, _: &Corpus) -> Growing {
    let (start, piece) = (message(rng, [0x81, 0x80], 0), record(rng));
    Box::new(move |times| {
        let mut bytes = start.clone();
        bytes[6..8].copy_from_slice(&u16::try_from(times).unwrap_or(u16::MAX).to_be_bytes());
        // A record of EDNS comes last, and is left out of what grows.
        bytes[11] = 0;
        (0..times).for_each(|_| bytes.extend(&piece));
        bytes
    })
}

pub(crate) fn answer(input: &[u8]) {
    assert_eq!(dns::parts::answer(input), Ok(()));
}
