//! CBOR (RFC 8949) as the Kubernetes API speaks it (KEP-4222): texts are byte strings, and what is written starts
//! with the tag that says "this is CBOR".

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Number, Value};
use values::{Budget, Exceeded};

/// The tag that self-describes CBOR (RFC 8949, 3.4.6).
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Arrays and maps within each other, at most: as deep as JSON is read here.
const DEEPEST: usize = 120;

/// Why bytes are no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// They end too early, or what they say makes no sense.
    #[error("the body is cut off or broken: it is no CBOR")]
    Broken,
    /// Something that JSON can't say.
    #[error("the body holds {0}, which the API has no use for")]
    Unusable(&'static str),
    /// Arrays and maps lie too deep in each other.
    #[error("the body is nested more than {DEEPEST} deep")]
    TooDeep,
    /// It would take more memory than a body may.
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
    /// There is more behind the value.
    #[error("the body holds more than one value")]
    Trailing,
}

/// A value as CBOR.
pub fn to_cbor(value: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    put(&mut out, value);
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(set) => out.push(0xf4 + u8::from(*set)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => head(out, 0, number),
            (_, Some(number)) => head(out, 1, !number as u64),
            _ => {
                out.push(0xfb);
                out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Value::String(text) => put_text(out, text),
        Value::Array(list) => {
            head(out, 4, list.len() as u64);
            list.iter().for_each(|item| put(out, item));
        }
        Value::Object(map) => {
            head(out, 5, map.len() as u64);
            for (key, value) in map {
                put_text(out, key);
                put(out, value);
            }
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    head(out, 2, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The value in `body`.
///
/// # Errors
/// If the bytes are no CBOR, or hold what JSON can't.
pub fn from_cbor(body: &[u8]) -> Result<Value, CborError> {
    let mut reader = Reader { rest: body, budget: Budget::default() };
    let value = reader.value(0)?.ok_or(CborError::Broken)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(CborError::Trailing) }
}

struct Reader<'a> {
    rest: &'a [u8],
    budget: Budget,
}

impl Reader<'_> {
    fn take(&mut self, length: u64) -> Result<&[u8], CborError> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let (taken, rest) = self.rest.split_at(length.ok_or(CborError::Broken)?);
        self.rest = rest;
        Ok(taken)
    }

    /// The major type, the short number, and the argument (none where the length is indefinite).
    fn head(&mut self) -> Result<(u8, u8, Option<u64>), CborError> {
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 0x1f);
        let argument = match short {
            0..24 => Some(u64::from(short)),
            24..28 => {
                let bytes = self.take(1 << (short - 24))?;
                Some(bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
            }
            31 => None,
            _ => return Err(CborError::Broken),
        };
        Ok((major, short, argument))
    }

    /// The next value; nothing at the end of what is indefinite.
    fn value(&mut self, depth: usize) -> Result<Option<Value>, CborError> {
        if depth > DEEPEST {
            return Err(CborError::TooDeep);
        }
        let (major, short, argument) = self.head()?;
        match major {
            4 => self.budget.list()?,
            5 => self.budget.map()?,
            // A text takes its length too, which the body bounds.
            _ => self.budget.scalar(0)?,
        }
        Ok(Some(match (major, argument) {
            (0, Some(number)) => Value::from(number),
            (1, Some(number)) => Value::from(
                i64::try_from(number)
                    .map(|number| !number)
                    .map_err(|_| CborError::Unusable("a huge number"))?,
            ),
            (2 | 3, length) => {
                let bytes = self.bytes(major, length)?;
                Value::String(
                    String::from_utf8(bytes).map_err(|_| CborError::Unusable("text that is no UTF-8"))?,
                )
            }
            (4, length) => {
                let mut list = Vec::new();
                let mut left = length;
                while left != Some(0) {
                    match self.value(depth + 1)? {
                        Some(value) => list.push(value),
                        None if left.is_none() => break,
                        None => return Err(CborError::Broken),
                    }
                    left = left.map(|left| left - 1);
                }
                Value::Array(list)
            }
            (5, length) => self.map(length, depth)?,
            (6, Some(tag)) => self.tagged(tag, depth)?,
            (7, Some(number)) => match (short, number) {
                (20 | 21, _) => Value::Bool(short == 21),
                (22 | 23, _) => Value::Null,
                (25, bits) => float(half(bits as u16))?,
                (26, bits) => float(f64::from(f32::from_bits(bits as u32)))?,
                (27, bits) => float(f64::from_bits(bits))?,
                _ => return Err(CborError::Unusable("a simple value")),
            },
            (7, None) => return Ok(None),
            _ => return Err(CborError::Broken),
        }))
    }

    fn bytes(&mut self, major: u8, length: Option<u64>) -> Result<Vec<u8>, CborError> {
        if let Some(length) = length {
            return Ok(self.take(length)?.to_vec());
        }
        let mut whole = Vec::new();
        loop {
            match self.head()? {
                (7, 31, None) => return Ok(whole),
                (part, _, Some(length)) if part == major => whole.extend_from_slice(self.take(length)?),
                _ => return Err(CborError::Broken),
            }
        }
    }

    fn map(&mut self, length: Option<u64>, depth: usize) -> Result<Value, CborError> {
        let mut map = Map::new();
        let mut left = length;
        while left != Some(0) {
            let key = match self.value(depth + 1)? {
                Some(Value::String(key)) => key,
                None if left.is_none() => break,
                Some(_) => return Err(CborError::Unusable("a map whose keys are no texts")),
                None => return Err(CborError::Broken),
            };
            self.budget.field(&key)?;
            let value = self.value(depth + 1)?.ok_or(CborError::Broken)?;
            if map.insert(key, value).is_some() {
                return Err(CborError::Unusable("a map with a key twice"));
            }
            left = left.map(|left| left - 1);
        }
        Ok(Value::Object(map))
    }

    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, CborError> {
        match tag {
            // Bytes that JSON writes as base64 or base16 (RFC 8949, 3.4.5.2).
            21..=23 => {
                let (major, _, length) = self.head()?;
                if major != 2 {
                    return Err(CborError::Unusable("an encoding of something that is no bytes"));
                }
                let bytes = self.bytes(major, length)?;
                Ok(Value::String(match tag {
                    21 => URL_SAFE_NO_PAD.encode(bytes),
                    22 => STANDARD.encode(bytes),
                    _ => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
                }))
            }
            // A time as text, and the tag that says "this is CBOR".
            0 | 55799 => self.value(depth + 1)?.ok_or(CborError::Broken),
            _ => Err(CborError::Unusable("an unknown tag")),
        }
    }
}

fn float(number: f64) -> Result<Value, CborError> {
    Number::from_f64(number).map(Value::Number).ok_or(CborError::Unusable("a number that is none"))
}

/// A number of 16 bits (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_rfc_8949_shows_is_read() {
        for (hex, expected) in [
            ("1903e8", json!(1000)),
            ("3903e7", json!(-1000)),
            ("f93c00", json!(1.0)),
            ("f90001", json!(5.960464477539063e-8)),
            ("fa47c35000", json!(100000.0)),
            ("fb3ff199999999999a", json!(1.1)),
            ("f4", json!(false)),
            ("f6", json!(null)),
            ("43616263", json!("abc")),
            ("d64401020304", json!("AQIDBA==")),
            ("d74401020304", json!("01020304")),
            ("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
            ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
            ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
            ("7f657374726561646d696e67ff", json!("streaming")),
        ] {
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(from_cbor(&bytes).unwrap(), expected, "{hex}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bytes in [
            &b""[..],
            b"\x9f",
            b"\xbf\x01\x02\xff",
            b"\x01\x01",
            b"\xc1\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(from_cbor(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(from_cbor(&[0x81; 5000]), Err(CborError::TooDeep));
        assert_eq!(from_cbor(&[0xd9; 5000]), Err(CborError::Unusable("an unknown tag")));
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            ".{0,30}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{0,8}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in anything()) {
            prop_assert_eq!(from_cbor(&to_cbor(&value)).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = from_cbor(&bytes);
        }
    }
}
