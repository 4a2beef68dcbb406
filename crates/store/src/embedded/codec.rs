//! Numbers and byte strings as bytes: what the log, the snapshots and the peers' messages are made of.
//!
//! Numbers are LEB128 (seven bits a byte, least significant first); byte strings carry their length before
//! them. Reading checks every bound, so bytes from a broken disk or peer end in [`Malformed`].

use bytes::{Buf, Bytes};

use crate::{KeyValue, LeaseId, Revision, Value};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub &'static str);

const TOO_EARLY: Malformed = Malformed("it ends too early");
const TOO_LONG: Malformed = Malformed("a byte string is longer than its container");
const TOO_FEW: Malformed = Malformed("there are fewer elements than announced");

impl Malformed {
    /// Whether the bytes may only be the beginning of what they should be.
    pub fn may_be_a_beginning(&self) -> bool {
        [TOO_EARLY, TOO_LONG, TOO_FEW].contains(self)
    }
}

/// Appends a number.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes [`put_number`] appends.
pub fn number_size(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a signed number, small ones of either sign in few bytes.
pub fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, unsigned(number));
}

/// How many bytes [`put_signed`] appends.
pub fn signed_size(number: i64) -> usize {
    number_size(unsigned(number))
}

fn unsigned(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Appends a revision.
pub fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    put_number(out, revision.0);
}

/// Appends a byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a key with its value, its revisions and its lease. Its value is written whole, however it is kept in memory.
pub fn put_key_value(out: &mut Vec<u8>, kv: &KeyValue) {
    out.reserve(key_value_size(kv));
    put_bytes(out, &kv.key);
    put_bytes(out, &kv.value.bytes());
    put_revision(out, kv.create_revision);
    put_revision(out, kv.mod_revision);
    put_number(out, kv.version);
    put_signed(out, kv.lease.0);
}

/// How many bytes [`put_key_value`] appends.
pub fn key_value_size(kv: &KeyValue) -> usize {
    let strings = [kv.key.len(), kv.value.len()].map(|length| number_size(length as u64) + length);
    let numbers = [kv.create_revision.0, kv.mod_revision.0, kv.version].map(number_size);
    strings.iter().chain(&numbers).sum::<usize>() + signed_size(kv.lease.0)
}

/// Reads what the `put_` functions wrote.
#[derive(Debug)]
pub struct Decoder(pub Bytes);

impl Decoder {
    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        if self.0.is_empty() {
            return Err(TOO_EARLY);
        }
        Ok(self.0.get_u8())
    }

    /// As many bytes as the array is long.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = *self.0.first_chunk().ok_or(TOO_EARLY)?;
        self.0.advance(N);
        Ok(array)
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    /// A signed number.
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A revision.
    pub fn revision(&mut self) -> Result<Revision, Malformed> {
        self.number().map(Revision)
    }

    /// A truth value.
    pub fn truth(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a truth value is neither 0 nor 1")),
        }
    }

    /// A byte string that shares memory with the input.
    pub fn shared(&mut self) -> Result<Bytes, Malformed> {
        let length = self.number()?;
        if length > self.0.len() as u64 {
            return Err(TOO_LONG);
        }
        Ok(self.0.split_to(length as usize))
    }

    /// A byte string of its own, for what outlives the input.
    pub fn owned(&mut self) -> Result<Bytes, Malformed> {
        self.shared().map(|bytes| Bytes::copy_from_slice(&bytes))
    }

    /// A key with its value, its revisions and its lease, which all outlive the input.
    pub fn key_value(&mut self) -> Result<KeyValue, Malformed> {
        Ok(KeyValue {
            key: self.owned()?,
            value: Value::from(self.owned()?),
            create_revision: self.revision()?,
            mod_revision: self.revision()?,
            version: self.number()?,
            lease: LeaseId(self.signed()?),
        })
    }

    /// A byte string that is text.
    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.shared()?.to_vec()).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// How many elements follow; each takes a byte at least, so memory stays within the input's size.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(TOO_FEW);
        }
        Ok(count as usize)
    }

    /// As many elements as announced.
    pub fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Decoder) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.count()?;
        let mut list = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// Makes sure that nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("there is more than there should be")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(number: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(out.len(), number_size(number));
            put_signed(&mut out, signed);
            prop_assert_eq!(out.len(), number_size(number) + signed_size(signed));
            put_bytes(&mut out, &bytes);
            let kv = KeyValue {
                key: bytes.clone().into(),
                value: bytes.repeat(9).into(),
                create_revision: Revision(number / 3),
                mod_revision: Revision(number),
                version: number / 9,
                lease: LeaseId(signed),
            };
            let before = out.len();
            put_key_value(&mut out, &kv);
            prop_assert_eq!(out.len(), before + key_value_size(&kv));
            let mut decoder = Decoder(out.into());
            prop_assert_eq!(decoder.number(), Ok(number));
            prop_assert_eq!(decoder.signed(), Ok(signed));
            prop_assert_eq!(decoder.shared().map(|b| b.to_vec()), Ok(bytes));
            prop_assert_eq!(decoder.key_value(), Ok(kv));
            prop_assert_eq!(decoder.end(), Ok(()));
        }
    }

    #[test]
    fn lengths_beyond_the_input_are_refused() {
        let mut out = Vec::new();
        put_number(&mut out, u64::MAX);
        assert!(Decoder(out.clone().into()).shared().is_err());
        assert!(Decoder(out.clone().into()).list(Decoder::byte).is_err());
        assert!(Decoder(vec![0xff; 10].into()).number().is_err());
        assert_eq!(Decoder(out.into()).number(), Ok(u64::MAX));
    }
}
