//! JSON with an eye on keys that stand twice in one object: the last one counts, as in upstream.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// The JSON in `body`; `duplicate field "..."` is added to `faults` for every key that stands there again.
pub(crate) fn parse(body: &[u8], faults: &mut Vec<String>) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut path = String::new();
    let value = Part { path: &mut path, faults }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The JSON in `body`, and `duplicate field "..."` for every key that stands there again.
///
/// # Errors
/// If it is no JSON.
pub fn json_and_duplicates(body: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut faults = Vec::new();
    parse(body, &mut faults).map(|value| (value, faults))
}

/// Any format's value, and `duplicate field "..."` for every key that stands there again.
///
/// # Errors
/// Those of the format, and for what JSON can't say.
pub fn value_and_duplicates<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<(Value, Vec<String>), D::Error> {
    let (mut path, mut faults) = (String::new(), Vec::new());
    let value = Part { path: &mut path, faults: &mut faults }.deserialize(deserializer)?;
    Ok((value, faults))
}

struct Part<'a> {
    path: &'a mut String,
    faults: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let (length, mut list) = (self.path.len(), Vec::new());
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let part = sequence.next_element_seed(Part { path: self.path, faults: self.faults })?;
            self.path.truncate(length);
            match part {
                Some(value) => list.push(value),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (length, mut map) = (self.path.len(), Map::new());
        while let Some(Key(key)) = access.next_key()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let value = access.next_value_seed(Part { path: self.path, faults: self.faults })?;
            if map.contains_key(&key) {
                self.faults.push(format!("duplicate field {:?}", self.path));
            }
            self.path.truncate(length);
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// A key: a text, or what YAML takes for something else.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key(key.to_owned()))
    }

    fn visit_string<E>(self, key: String) -> Result<Key, E> {
        Ok(Key(key))
    }

    fn visit_bool<E>(self, key: bool) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_i64<E>(self, key: i64) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_u64<E>(self, key: u64) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_told_with_its_path() {
        let mut faults = Vec::new();
        let value = parse(br#"{"a":[{"b":1,"b":2}],"a.c":{"x":null}}"#, &mut faults).unwrap();
        assert_eq!(value, serde_json::json!({"a": [{"b": 2}], "a.c": {"x": null}}));
        assert_eq!(faults, [r#"duplicate field "a[0].b""#]);
    }

    #[test]
    fn depth_has_a_bound() {
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes(), &mut Vec::new()).is_err());
    }
}
