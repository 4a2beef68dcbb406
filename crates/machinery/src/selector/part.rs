//! The part of an object by which it can be selected, read without the rest.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::object::Object;
use crate::pointer::tokens;
use crate::resource::Resource;

/// The fields by which objects of a resource can be selected: name, namespace, labels, and those of its kind.
///
/// Most watches and many lists select, and look at every object for that. To read these fields alone takes a fraction of
/// the time and memory of a whole object.
#[derive(Debug, Clone)]
pub struct Selectable {
    fields: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    Whole,
    Of(BTreeMap<String, Wanted>),
}

impl Selectable {
    /// The fields of a resource's objects.
    pub fn of(resource: &Resource) -> Self {
        let mut fields = Wanted::Of(BTreeMap::new());
        for pointer in ["/metadata/name", "/metadata/namespace", "/metadata/labels"] {
            fields.add(pointer);
        }
        resource.rules.selectable().iter().for_each(|(_, pointer)| fields.add(pointer));
        resource.custom.iter().flat_map(|custom| custom.selectable_pointers()).for_each(|p| fields.add(p));
        Selectable { fields }
    }

    /// These fields of an object in JSON, as an object.
    ///
    /// # Errors
    /// If the JSON is none, or no object.
    pub fn read(&self, json: &[u8]) -> Result<Object, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let value = Part(&self.fields).deserialize(&mut reader)?;
        reader.end()?;
        serde_json::from_value(value)
    }
}

impl Wanted {
    /// Adds the field of a JSON pointer (RFC 6901).
    fn add(&mut self, pointer: &str) {
        let mut place = self;
        for name in tokens(pointer) {
            // What is wanted as a whole has all of its parts already.
            let Wanted::Of(fields) = place else { return };
            place = fields.entry(name.into_owned()).or_insert_with(|| Wanted::Of(BTreeMap::new()));
        }
        *place = Wanted::Whole;
    }
}

struct Part<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.0 {
            Wanted::Whole => serde::Deserialize::deserialize(from),
            Wanted::Of(fields) => from.deserialize_any(Fields(fields)),
        }
    }
}

struct Fields<'a>(&'a BTreeMap<String, Wanted>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = from.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.get(&*key) {
                Some(wanted) => {
                    let value = from.next_value_seed(Part(wanted))?;
                    map.insert(key.into_owned(), value);
                }
                None => drop(from.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(map))
    }

    // Where fields are wanted and something else is, no selector finds anything.
    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        while from.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}
