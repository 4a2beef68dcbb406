//! JSON with an eye on keys that stand twice in one object: the last one counts, as in upstream.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The JSON in `body`; `duplicate field "..."` is added to `faults` for every key that stands there again.
pub(crate) fn parse(body: &[u8], faults: &mut Vec<String>) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut path = String::new();
    let value = Part { path: &mut path, faults }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
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
        while let Some(key) = access.next_key::<String>()? {
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
