//! JSON with an eye on keys that stand twice in one object: the last one counts, as in upstream.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{Budget, Exceeded, LONGEST_PATH, MOST_DUPLICATES, cut};

/// Why bytes are no value.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// They are no JSON, or nested too deep.
    #[error(transparent)]
    Broken(#[from] serde_json::Error),
    /// They are small, and what they say is not.
    #[error(transparent)]
    TooLarge(Exceeded),
}

/// The value in the JSON `body`.
///
/// # Errors
/// If it is no JSON, or its values would take too much memory.
pub fn from_json(body: &[u8]) -> Result<Value, JsonError> {
    json_and_duplicates(body).map(|(value, _)| value)
}

/// The value in the JSON `body`, and `duplicate field "..."` for the first keys that stand there again.
///
/// # Errors
/// If it is no JSON, or its values would take too much memory.
pub fn json_and_duplicates(body: &[u8]) -> Result<(Value, Vec<String>), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut reading = Reading::default();
    let read = Part(&mut reading).deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match read {
        Ok(value) => Ok((value, reading.faults)),
        Err(_) if reading.exceeded => Err(JsonError::TooLarge(Exceeded)),
        Err(error) => Err(error.into()),
    }
}

/// Those of `paths`, of which each names a field as [`json_and_duplicates`] does or an item of a list (`a.b[0]`), that stand in
/// the JSON `body`: in the order in which they do.
pub fn in_order_of(body: &[u8], paths: &[&str]) -> Vec<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut places = Places { wanted: paths.iter().copied().collect(), ..Places::default() };
    // What is found before the body breaks off is found.
    let _ = Place(&mut places).deserialize(&mut deserializer);
    places.found
}

/// Where a walk through a body is, and what it has met.
#[derive(Default)]
struct Places<'a> {
    path: String,
    wanted: HashSet<&'a str>,
    found: Vec<String>,
}

impl Places<'_> {
    /// Keeps the present place if it is wanted.
    fn met(&mut self) {
        // A longer one is never told, and to look it up takes as long as it is: for each key below a long one.
        if self.path.len() <= LONGEST_PATH && self.wanted.remove(self.path.as_str()) {
            self.found.push(self.path.clone());
        }
    }
}

struct Place<'a, 'p>(&'a mut Places<'p>);

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let (length, mut index) = (self.0.path.len(), 0);
        loop {
            self.0.path.push_str(&format!("[{index}]"));
            self.0.met();
            let part = sequence.next_element_seed(Place(self.0))?;
            self.0.path.truncate(length);
            index += 1;
            if part.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        while let Some(key) = access.next_key::<Cow<'_, str>>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            self.0.met();
            access.next_value_seed(Place(self.0))?;
            self.0.path.truncate(length);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Reading {
    path: String,
    faults: Vec<String>,
    budget: Budget,
    exceeded: bool,
}

impl Reading {
    fn spend<E: Error>(&mut self, spend: impl FnOnce(&mut Budget) -> Result<(), Exceeded>) -> Result<(), E> {
        spend(&mut self.budget).map_err(|exceeded| {
            self.exceeded = true;
            E::custom(exceeded)
        })
    }

    fn duplicate(&mut self) {
        if self.faults.len() < MOST_DUPLICATES {
            self.faults.push(format!("duplicate field {:?}", cut(&self.path, LONGEST_PATH)));
        }
    }
}

/// What is larger than an integer of 64 bits Go reads as a float, and writes the fewest digits of it that tell it from others: as a
/// whole number, which those just below 2^64 are too large for here.
pub(crate) fn as_go_reads(value: u64) -> Number {
    if i64::try_from(value).is_ok() {
        return value.into();
    }
    let float = value as f64;
    let whole: Option<u64> = float.to_string().parse().ok();
    // An integer is finite.
    whole.map(Number::from).or_else(|| Number::from_f64(float)).unwrap_or_else(|| value.into())
}

struct Part<'a>(&'a mut Reading);

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

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(0))?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(0))?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(0))?;
        Ok(Value::Number(as_go_reads(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(0))?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(value.len()))?;
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.spend(|budget| budget.scalar(0))?;
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        self.0.spend(Budget::list)?;
        let (length, mut list) = (self.0.path.len(), Vec::new());
        loop {
            let path = &mut self.0.path;
            path.push('[');
            path.push_str(&list.len().to_string());
            path.push(']');
            let part = sequence.next_element_seed(Part(self.0))?;
            self.0.path.truncate(length);
            match part {
                Some(value) => list.push(value),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.spend(Budget::map)?;
        let (length, mut map) = (self.0.path.len(), Map::new());
        while let Some(key) = access.next_key::<String>()? {
            self.0.spend(|budget| budget.field(&key))?;
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            let value = access.next_value_seed(Part(self.0))?;
            if map.contains_key(&key) {
                self.0.duplicate();
            }
            self.0.path.truncate(length);
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
        let (value, faults) = json_and_duplicates(br#"{"a":[{"b":1,"b":2}],"a.c":{"x":null}}"#).unwrap();
        assert_eq!(value, serde_json::json!({"a": [{"b": 2}], "a.c": {"x": null}}));
        assert_eq!(faults, [r#"duplicate field "a[0].b""#]);
    }

    #[test]
    fn paths_are_found_in_the_order_of_the_body() {
        let body = br#"{"z":1,"b":{"y":[{"x":1},{"x":2,"w":3}]},"a":null,"z":2}"#;
        let paths = ["a", "b.y[1].w", "b.y[1].x", "no", "z"];
        assert_eq!(in_order_of(body, &paths), ["z", "b.y[1].x", "b.y[1].w", "a"]);
        assert_eq!(in_order_of(body, &["b.y[1]", "b.y[0]", "b.y[7]"]), ["b.y[0]", "b.y[1]"]);
        assert_eq!(in_order_of(b"{", &paths), [""; 0]);
    }

    #[test]
    fn large_numbers_are_floats() {
        let value = from_json(b"[9223372036854775807,9223372036854775808,18446744073709551615]").unwrap();
        let text = "[9223372036854775807,9223372036854776000,1.8446744073709552e+19]";
        assert_eq!(value.to_string(), text);
    }

    #[test]
    fn depth_has_a_bound() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(1_000_000);
            assert!(matches!(from_json(deep.as_bytes()), Err(JsonError::Broken(_))), "{open}");
        }
    }

    #[test]
    fn a_body_of_many_values_is_too_large() {
        let many = |item: &str, count: usize| format!("[{}0]", format!("{item},").repeat(count));
        for (item, most) in
            [("0", 1_500_000), ("\"\"", 1_000_000), ("{\"name\":\"a\",\"value\":\"b\"}", 60_000)]
        {
            assert!(from_json(many(item, most).as_bytes()).is_ok(), "{most} of {item} fit");
        }
        for item in ["{}", "{\"a\":1}"] {
            let read = from_json(many(item, 400_000).as_bytes());
            assert!(matches!(read, Err(JsonError::TooLarge(_))), "{item}");
        }
    }

    #[test]
    fn few_keys_are_told_and_shortly() {
        let key = "k".repeat(100_000);
        let again = "\"a\":1,".repeat(10_000);
        let (_, faults) =
            json_and_duplicates(format!("{{\"{key}\":{{{again}\"a\":1}}}}").as_bytes()).unwrap();
        assert_eq!(faults.len(), MOST_DUPLICATES);
        assert!(faults.iter().all(|fault| fault.len() < 2 * LONGEST_PATH));
    }
}
