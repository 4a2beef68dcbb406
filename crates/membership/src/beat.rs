//! A heartbeat on the wire: version, name of the sender, incarnation, sequence, epoch, its view of the members, what it has taken in of
//! the receiver, what it says about hosts that it doesn't hear, and an HMAC over all of it. That it hears fewer than half of the members it says as
//! one says of another host that it misses it, with its own name: who doesn't know that takes it for such a word.

use ring::hmac;

use crate::lease::{Acknowledged, Epoch, View, Word};

const VERSION: u8 = 2;
const SIGNATURE: usize = 32;
/// As long as a DNS name may be.
pub(crate) const LONGEST_NAME: usize = 253;
/// No heartbeat is longer: what every IPv6 link carries in one piece (1,280 bytes) without its headers.
pub(crate) const LONGEST: usize = 1232;

/// What stands for [`Word::Missed`] where a vote has its epoch: no epoch is 0.
const MISSED: Epoch = 0;

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat<'a> {
    pub from: &'a str,
    /// The sender's life (random for every start), its epoch, and which of the life's beats this is.
    pub what: Acknowledged,
    /// By which members the sender counts.
    pub view: View,
    /// The newest beat of the receiver that the sender has taken in.
    pub acknowledges: Option<Acknowledged>,
    /// The sender hears fewer than half of the members.
    pub is_deaf: bool,
    /// What the sender says about hosts that it doesn't hear.
    pub words: Vec<(&'a str, Word)>,
}

impl<'a> Beat<'a> {
    /// The signed datagram. The name is one that [`LONGEST_NAME`] allows. Words for which there is no room are left out: how many are in
    /// it is returned, so that the next beat begins with the others.
    pub fn encode(&self, key: &hmac::Key, into: &mut Vec<u8>) -> usize {
        into.clear();
        into.push(VERSION);
        put_name(into, self.from);
        put_beat(into, self.what);
        put(into, self.view.0);
        into.push(u8::from(self.acknowledges.is_some()));
        if let Some(acknowledged) = self.acknowledges {
            put_beat(into, acknowledged);
        }
        if self.is_deaf {
            // Two names of any length fit in.
            put_name(into, self.from);
            put(into, MISSED);
        }
        let mut said = 0;
        for (host, word) in &self.words {
            if into.len() + 1 + host.len() + size_of::<Epoch>() + SIGNATURE > LONGEST {
                break;
            }
            put_name(into, host);
            put(
                into,
                match word {
                    Word::Missed => MISSED,
                    Word::Never(epoch) => *epoch,
                },
            );
            said += 1;
        }
        let signature = hmac::sign(key, into);
        into.extend_from_slice(signature.as_ref());
        said
    }

    /// The heartbeat in a datagram, if it is one and its signature is right (compared in constant time).
    pub fn decode(datagram: &'a [u8], key: &hmac::Key) -> Option<Self> {
        if datagram.len() > LONGEST {
            return None;
        }
        let (signed, signature) = datagram.split_at_checked(datagram.len().checked_sub(SIGNATURE)?)?;
        // Before anything is read of it: anybody can send a datagram.
        hmac::verify(key, signed, signature).ok()?;
        let (&version, mut rest) = signed.split_first()?;
        if version != VERSION {
            return None;
        }
        let from = name(&mut rest)?;
        let what = beat(&mut rest).filter(|what| what.epoch > 0)?;
        let view = View(number(&mut rest)?);
        let (&has, after) = rest.split_first()?;
        rest = after;
        let acknowledges = match has {
            0 => None,
            1 => Some(beat(&mut rest)?),
            _ => return None,
        };
        let (mut words, mut is_deaf) = (Vec::new(), false);
        while !rest.is_empty() {
            let host = name(&mut rest)?;
            match number(&mut rest)? {
                // First and once: one heartbeat has one form.
                MISSED if host == from && (is_deaf || !words.is_empty()) => return None,
                MISSED if host == from => is_deaf = true,
                MISSED => words.push((host, Word::Missed)),
                epoch => words.push((host, Word::Never(epoch))),
            }
        }
        Some(Beat { from, what, view, acknowledges, is_deaf, words })
    }
}

fn put(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(&number.to_be_bytes());
}

/// Names are as long as [`LONGEST_NAME`] at most.
fn put_name(into: &mut Vec<u8>, name: &str) {
    into.push(name.len() as u8);
    into.extend_from_slice(name.as_bytes());
}

fn put_beat(into: &mut Vec<u8>, Acknowledged { incarnation, epoch, sequence }: Acknowledged) {
    put(into, incarnation);
    put(into, epoch);
    put(into, sequence);
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_be_bytes(*bytes))
}

fn name<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let (&length, rest) = from.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    *from = rest;
    std::str::from_utf8(name).ok()
}

fn beat(from: &mut &[u8]) -> Option<Acknowledged> {
    Some(Acknowledged { incarnation: number(from)?, epoch: number(from)?, sequence: number(from)? })
}

/// A signed heartbeat's datagram, which acknowledges nothing. The name is as long as a DNS name at most.
pub fn heartbeat(from: &str, incarnation: u64, sequence: u64, key: &[u8; 32]) -> Vec<u8> {
    let what = Acknowledged { incarnation, epoch: 1, sequence };
    let view = View::default();
    let beat = Beat { from, what, view, acknowledges: None, is_deaf: false, words: Vec::new() };
    let mut datagram = Vec::new();
    beat.encode(&hmac::Key::new(hmac::HMAC_SHA256, key), &mut datagram);
    datagram
}

/// The heartbeat in a datagram, encoded again, if it is one. `signed` puts the right signature behind the datagram first: what forges
/// none gets no further.
pub fn heartbeat_in(datagram: &[u8], key: &[u8; 32], signed: bool) -> Option<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut datagram = datagram.to_vec();
    if signed {
        let signature = hmac::sign(&key, &datagram);
        datagram.extend_from_slice(signature.as_ref());
    }
    let mut again = Vec::new();
    Beat::decode(&datagram, &key)?.encode(&key, &mut again);
    Some(again)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    fn acknowledged() -> impl Strategy<Value = Acknowledged> {
        any::<[u64; 3]>().prop_map(|[incarnation, epoch, sequence]| Acknowledged {
            incarnation,
            epoch: epoch.max(1),
            sequence,
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received_and_nothing_else(
            from in "[a-z0-9.-]{1,60}", what in acknowledged(), view: u64, acknowledges in prop::option::of(acknowledged()), is_deaf: bool,
            words in prop::collection::vec(("[a-z0-9.-]{1,60}", 0..u64::MAX), 0..5),
            at: prop::sample::Index, bit in 0..8u8,
        ) {
            let word = |epoch| if epoch == 0 { Word::Missed } else { Word::Never(epoch) };
            let words = words.iter().filter(|(host, _)| *host != from);
            let words: Vec<(&str, Word)> = words.map(|(host, epoch)| (host.as_str(), word(*epoch))).collect();
            let beat = Beat { from: &from, what, view: View(view), acknowledges, is_deaf, words };
            let mut datagram = Vec::new();
            prop_assert_eq!(beat.encode(&key(1), &mut datagram), beat.words.len());
            prop_assert!(datagram.len() <= LONGEST);
            prop_assert_eq!(Beat::decode(&datagram, &key(1)), Some(beat));
            prop_assert_eq!(Beat::decode(&datagram, &key(2)), None);

            let at = at.index(datagram.len());
            prop_assert_eq!(Beat::decode(&datagram[..at], &key(1)), None, "cut short");
            datagram[at] ^= 1 << bit;
            prop_assert_eq!(Beat::decode(&datagram, &key(1)), None, "one bit changed");
        }

        #[test]
        fn garbage_is_refused_even_if_it_is_signed(mut garbage in prop::collection::vec(any::<u8>(), 1..300)) {
            prop_assert_eq!(Beat::decode(&garbage, &key(1)), None);
            let signature = hmac::sign(&key(1), &garbage);
            garbage.extend_from_slice(signature.as_ref());
            // Decoding must not panic; a well-formed beat can't come out of a wrong version.
            if garbage[0] != VERSION {
                prop_assert_eq!(Beat::decode(&garbage, &key(1)), None);
            }
            garbage[0] = VERSION;
            let signed = heartbeat_in(&garbage[..garbage.len() - SIGNATURE], &[1; 32], true);
            if let Some(again) = signed {
                prop_assert_eq!(heartbeat_in(&again, &[1; 32], false), Some(again));
            }
        }
    }

    #[test]
    fn that_the_sender_is_deaf_is_said_in_one_way() {
        let what = Acknowledged { incarnation: 1, epoch: 2, sequence: 3 };
        let datagram = |words: &[&'static str], is_deaf| {
            let words = words.iter().map(|host| (*host, Word::Missed)).collect();
            let beat = Beat { from: "n1", what, view: View(1), acknowledges: None, is_deaf, words };
            let mut datagram = Vec::new();
            beat.encode(&key(1), &mut datagram);
            datagram
        };
        let said = datagram(&["n1", "n2"], false);
        assert_eq!(said, datagram(&["n2"], true));
        assert!(Beat::decode(&said, &key(1)).unwrap().is_deaf);
        for (words, is_deaf) in [(vec!["n2", "n1"], false), (vec!["n1"], true)] {
            assert_eq!(Beat::decode(&datagram(&words, is_deaf), &key(1)), None);
        }
    }

    #[test]
    fn words_beyond_what_a_datagram_holds_are_left_out() {
        let names: Vec<String> = (0..200).map(|n| format!("host-{n}")).collect();
        let what = Acknowledged { incarnation: 1, epoch: 2, sequence: 3 };
        let words: Vec<(&str, Word)> = names.iter().map(|name| (name.as_str(), Word::Missed)).collect();
        for is_deaf in [false, true] {
            let words = words.clone();
            let beat = Beat { from: "n1", what, view: View(1), acknowledges: None, is_deaf, words };
            let mut datagram = Vec::new();
            let said = beat.encode(&key(1), &mut datagram);
            assert!(datagram.len() <= LONGEST && datagram.len() > LONGEST - 20);
            let seen = Beat::decode(&datagram, &key(1)).unwrap();
            assert!(said > 50 && seen.words == beat.words[..said] && seen.is_deaf == is_deaf);
        }
    }
}
