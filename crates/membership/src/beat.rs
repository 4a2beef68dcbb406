//! A heartbeat on the wire: version, name of the sender, incarnation, sequence, and an HMAC over all of it.

use ring::hmac;

const VERSION: u8 = 1;
const NUMBERS: usize = 16;
const SIGNATURE: usize = 32;
/// As long as a DNS name may be.
pub(crate) const LONGEST_NAME: usize = 253;
/// No heartbeat is longer.
pub(crate) const LONGEST: usize = 2 + LONGEST_NAME + NUMBERS + SIGNATURE;

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat<'a> {
    pub from: &'a str,
    /// Random for every start of the sender.
    pub incarnation: u64,
    /// Counts the sender's beats of this incarnation.
    pub sequence: u64,
}

impl<'a> Beat<'a> {
    /// The signed datagram. The name is one that [`LONGEST_NAME`] allows.
    pub fn encode(&self, key: &hmac::Key, into: &mut Vec<u8>) {
        into.clear();
        into.push(VERSION);
        into.push(self.from.len() as u8);
        into.extend_from_slice(self.from.as_bytes());
        into.extend_from_slice(&self.incarnation.to_be_bytes());
        into.extend_from_slice(&self.sequence.to_be_bytes());
        let signature = hmac::sign(key, into);
        into.extend_from_slice(signature.as_ref());
    }

    /// The heartbeat in a datagram, if it is one and its signature is right (compared in constant time).
    pub fn decode(datagram: &'a [u8], key: &hmac::Key) -> Option<Self> {
        let (signed, signature) = datagram.split_at_checked(datagram.len().checked_sub(SIGNATURE)?)?;
        // Before anything is read of it: anybody can send a datagram.
        hmac::verify(key, signed, signature).ok()?;
        let (&[version, length], rest) = signed.split_first_chunk()?;
        let (name, numbers) = rest.split_at_checked(usize::from(length))?;
        let (incarnation, sequence) = numbers.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        Some(Beat {
            from: std::str::from_utf8(name).ok()?,
            incarnation: u64::from_be_bytes(*incarnation),
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
        })
    }
}

/// A signed heartbeat's datagram. The name is as long as a DNS name at most.
pub fn heartbeat(from: &str, incarnation: u64, sequence: u64, key: &[u8; 32]) -> Vec<u8> {
    let mut datagram = Vec::new();
    Beat { from, incarnation, sequence }.encode(&hmac::Key::new(hmac::HMAC_SHA256, key), &mut datagram);
    datagram
}

/// Whom the heartbeat in a datagram is from, with incarnation and sequence, if it is one. `signed` puts the right signature
/// behind the datagram first: what forges none gets no further.
pub fn heartbeat_in(datagram: &[u8], key: &[u8; 32], signed: bool) -> Option<(String, u64, u64)> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut datagram = datagram.to_vec();
    if signed {
        let signature = hmac::sign(&key, &datagram);
        datagram.extend_from_slice(signature.as_ref());
    }
    Beat::decode(&datagram, &key).map(|beat| (beat.from.to_owned(), beat.incarnation, beat.sequence))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received_and_nothing_else(
            from in "[a-z0-9.-]{1,60}", incarnation: u64, sequence: u64, at: prop::sample::Index, bit in 0..8u8,
        ) {
            let beat = Beat { from: &from, incarnation, sequence };
            let mut datagram = Vec::new();
            beat.encode(&key(1), &mut datagram);
            prop_assert!(datagram.len() <= LONGEST);
            prop_assert_eq!(Beat::decode(&datagram, &key(1)), Some(beat));
            prop_assert_eq!(Beat::decode(&datagram, &key(2)), None);

            let at = at.index(datagram.len());
            prop_assert_eq!(Beat::decode(&datagram[..at], &key(1)), None, "cut short");
            datagram[at] ^= 1 << bit;
            prop_assert_eq!(Beat::decode(&datagram, &key(1)), None, "one bit changed");
        }

        #[test]
        fn garbage_is_refused_even_if_it_is_signed(mut garbage: Vec<u8>) {
            prop_assert_eq!(Beat::decode(&garbage, &key(1)), None);
            let signature = hmac::sign(&key(1), &garbage);
            garbage.extend_from_slice(signature.as_ref());
            // Decoding must not panic; a well-formed beat can't come out of a wrong version.
            if garbage[0] != VERSION {
                prop_assert_eq!(Beat::decode(&garbage, &key(1)), None);
            }
        }
    }
}
