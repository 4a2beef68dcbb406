//! An object held against its schema.

use cel::Quantity;
use serde_json::{Map, Value};
use values::{LONGEST_PATH, cut};

use crate::faults::MOST_FAULTS;
use crate::mismatch::{TypeMismatch, canonical_base64, quantity_fault};
use crate::object::Object;
use crate::resource::Resource;
use crate::schema::{Schema, Shape};
use crate::time;

/// Walks an object: values into their canonical form, unknown fields out.
pub struct Conform<'a> {
    faults: &'a mut Vec<String>,
    most: usize,
    path: String,
    /// Whether every list and map that is given and empty stays, until the object is settled.
    keeps_empties: bool,
    misfits: Misfits,
}

/// What becomes of values that their fields can't hold.
#[derive(Debug)]
enum Misfits {
    /// The first one ends the walk.
    End,
    /// All stay, and are kept with their places.
    Stay(Vec<Misfit>),
    /// All stay but the one at this place, which ends the walk.
    EndAt(String),
}

/// A value that its field can't hold.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// Its place, such as `spec.ports[0].port`.
    pub path: String,
    /// Whether Go's decoder reads no further: where the type reads itself. Others it keeps in mind and reads on.
    pub ends: bool,
}

impl<'a> Conform<'a> {
    /// Of a whole object; the first `most` things that are no faults but worth a warning go into `faults`.
    pub fn new(faults: &'a mut Vec<String>, most: usize) -> Self {
        Conform { faults, most, path: String::new(), keeps_empties: false, misfits: Misfits::End }
    }

    /// The values of an object of a schema that don't fit, by name: the first ones of a bounded number whose places aren't very long.
    pub(crate) fn misfits(schema: &Schema, object: &mut Map<String, Value>) -> Vec<Misfit> {
        let mut none = Vec::new();
        let mut conform = Conform { misfits: Misfits::Stay(Vec::new()), ..Conform::new(&mut none, 0) };
        // All stay, so that none ends the walk.
        let _ = conform.object(schema, object);
        let Misfits::Stay(found) = conform.misfits else { return Vec::new() };
        found
    }

    /// Why the value at a place doesn't fit, if it doesn't.
    pub(crate) fn misfit_at(
        schema: &Schema,
        object: &mut Map<String, Value>,
        path: String,
    ) -> Option<TypeMismatch> {
        let mut none = Vec::new();
        let mut conform = Conform { misfits: Misfits::EndAt(path), ..Conform::new(&mut none, 0) };
        conform.object(schema, object).err()
    }

    /// Of an object that stands at `path`.
    pub fn at(path: String, faults: &'a mut Vec<String>, most: usize) -> Self {
        Conform { path, ..Conform::new(faults, most) }
    }

    /// The path that it was given, with more behind it where something didn't fit.
    pub fn into_path(self) -> String {
        self.path
    }

    /// Of a kind that tells an empty list or map from none.
    pub fn keeping_empties(self, keeps_empties: bool) -> Self {
        Conform { keeps_empties, ..self }
    }

    /// The object of a schema.
    ///
    /// # Errors
    /// At the first value that its field can't hold.
    pub fn object(&mut self, schema: &Schema, object: &mut Map<String, Value>) -> Result<(), TypeMismatch> {
        let length = self.path.len();
        let mut result = Ok(());
        object.retain(|name, value| {
            if result.is_err() {
                return true;
            }
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            let keep = match schema.field(name) {
                None => {
                    if self.faults.len() < self.most {
                        self.faults.push(format!("unknown field {:?}", cut(&self.path, LONGEST_PATH)));
                    }
                    false
                }
                Some(field) => {
                    result = self.value(&field.shape, value).map_err(|e| e.in_field(schema, field.name));
                    // Upstream's `omitempty`: an empty list or map says nothing where none is required, nor does a zero
                    // where the field is no pointer. Some that are given upstream still sees until it has judged the object.
                    let keeps_empty = field.required
                        || self.keeps_empties
                        || schema.nulls.contains(&field.name)
                        || field.sees_empty.iter().any(|end| self.path.ends_with(end));
                    let is_zero = field.zero_is_nothing && is_zero(value);
                    !value.is_null() && !is_zero && (keeps_empty || !is_empty(&field.shape, value))
                }
            };
            if result.is_ok() {
                self.path.truncate(length);
            }
            keep
        });
        result
    }

    fn value(&mut self, shape: &Shape, value: &mut Value) -> Result<(), TypeMismatch> {
        if value.is_null() {
            return Ok(());
        }
        let length = self.path.len();
        match (shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::Text | Shape::IntOrString, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Number, Value::Number(_))
            | (Shape::ObjectOrBoolean(_), Value::Bool(_)) => {}
            (Shape::Int32 | Shape::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {}
            (Shape::Int64, Value::Number(number)) if number.is_i64() => {}
            (Shape::Bytes, Value::String(text)) => match canonical_base64(text) {
                Ok(None) => {}
                Ok(Some(canonical)) => *text = canonical,
                Err(why) => self.misfit(why, false)?,
            },
            (Shape::Time, Value::String(text)) => match time::canonical_seconds(text) {
                Ok(canonical) => *text = canonical,
                Err(why) => self.misfit(TypeMismatch::content(why), true)?,
            },
            (Shape::MicroTime, Value::String(text)) => match time::canonical_micros(text) {
                Ok(canonical) => *text = canonical,
                Err(why) => self.misfit(TypeMismatch::content(why), true)?,
            },
            (Shape::Quantity, given) => {
                let text = match &*given {
                    Value::String(text) => text.trim().to_owned(),
                    other => other.to_string(),
                };
                match Quantity::parse(&text) {
                    Ok(quantity) => *given = Value::String(quantity.to_string()),
                    Err(_) => self.misfit(TypeMismatch::content(quantity_fault(&text)), true)?,
                }
            }
            (Shape::Object(of), Value::Object(object)) => {
                self.object(of.get(), object)?;
            }
            (Shape::ObjectOrBoolean(of) | Shape::ObjectOrList(of), Value::Object(object)) => {
                // Of unknown fields in here upstream says nothing.
                let most = std::mem::replace(&mut self.most, 0);
                self.object(of.get(), object)?;
                self.most = most;
            }
            (Shape::ObjectOrList(_), Value::Array(list)) if !list.is_empty() => {}
            // Upstream reads nothing from anything else, but that it was there.
            (Shape::ObjectOrList(_), _) => *value = Value::Array(Vec::new()),
            (Shape::List(items), Value::Array(list)) => {
                for (index, item) in list.iter_mut().enumerate() {
                    nothing_to_zero(items, item);
                    self.path.push_str(&format!("[{index}]"));
                    self.value(items, item).map_err(TypeMismatch::within)?;
                    self.path.truncate(length);
                }
                list.retain(|item| !item.is_null() || **items == Shape::Any);
            }
            (Shape::Map(values), Value::Object(map)) => {
                for (key, value) in map.iter_mut() {
                    nothing_to_zero(values, value);
                    self.path.push('.');
                    self.path.push_str(key);
                    self.value(values, value).map_err(TypeMismatch::within)?;
                    self.path.truncate(length);
                }
                map.retain(|_, value| !value.is_null());
            }
            (Shape::ObjectOrBoolean(_), _) => {
                self.misfit(TypeMismatch::content("boolean or JSON schema expected"), true)?;
            }
            (shape, value) => {
                let reads_itself = matches!(shape, Shape::Time | Shape::MicroTime | Shape::IntOrString);
                self.misfit(TypeMismatch::of_shape(value, shape), reads_itself)?;
            }
        }
        Ok(())
    }

    /// What becomes of the value at the present place, which doesn't fit.
    fn misfit(&mut self, why: TypeMismatch, ends: bool) -> Result<(), TypeMismatch> {
        match &mut self.misfits {
            Misfits::End => return Err(why),
            Misfits::Stay(found) if found.len() < MOST_FAULTS && self.path.len() <= LONGEST_PATH => {
                found.push(Misfit { path: self.path.clone(), ends });
            }
            Misfits::EndAt(path) if *path == self.path => return Err(why),
            Misfits::Stay(_) | Misfits::EndAt(_) => {}
        }
        Ok(())
    }
}

/// What an item or a value that is `null` comes to in Go, which has no nothing there.
fn nothing_to_zero(shape: &Shape, value: &mut Value) {
    if value.is_null() {
        *value = match shape {
            Shape::Text | Shape::Bytes => "".into(),
            Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => 0.into(),
            Shape::Boolean => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Object(_) | Shape::Map(_) => Value::Object(Map::new()),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Any
            | Shape::ObjectOrBoolean(_)
            | Shape::ObjectOrList(_)
            | Shape::Time
            | Shape::MicroTime => Value::Null,
        };
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(truth) => !truth,
        _ => false,
    }
}

/// What an object is written without: lists and maps that are empty. Those that are always written are null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Empties {
    All,
    /// All but those that are always written.
    LeftOut,
}

impl Empties {
    /// Takes them out.
    pub fn drop_from(self, schema: &Schema, object: &mut Map<String, Value>) {
        object.retain(|name, value| {
            let Some(field) = schema.field(name).filter(|_| value.is_array() || value.is_object()) else {
                return true;
            };
            self.drop_within(&field.shape, value);
            if !is_empty(&field.shape, value) {
                return true;
            }
            let is_written = schema.nulls.contains(&field.name);
            if is_written && self == Empties::All {
                *value = Value::Null;
            }
            is_written || field.required
        });
    }

    fn drop_within(self, shape: &Shape, value: &mut Value) {
        match (shape, value) {
            (
                Shape::Object(of) | Shape::ObjectOrBoolean(of) | Shape::ObjectOrList(of),
                Value::Object(object),
            ) => self.drop_from(of.get(), object),
            (Shape::List(items), Value::Array(list)) => {
                list.iter_mut().for_each(|item| self.drop_within(items, item));
            }
            (Shape::Map(values), Value::Object(map)) => {
                map.values_mut().for_each(|value| self.drop_within(values, value));
            }
            _ => {}
        }
    }

    /// Whether there is one.
    pub fn are_in(self, schema: &Schema, object: &Map<String, Value>) -> bool {
        object.iter().filter(|(_, value)| value.is_array() || value.is_object()).any(|(name, value)| {
            let Some(field) = schema.field(name) else { return false };
            let is_written = schema.nulls.contains(&field.name);
            let counts = if is_written { self == Empties::All } else { !field.required };
            counts && is_empty(&field.shape, value) || self.are_within(&field.shape, value)
        })
    }

    fn are_within(self, shape: &Shape, value: &Value) -> bool {
        match (shape, value) {
            (
                Shape::Object(of) | Shape::ObjectOrBoolean(of) | Shape::ObjectOrList(of),
                Value::Object(object),
            ) => self.are_in(of.get(), object),
            (Shape::List(items), Value::Array(list)) => list.iter().any(|item| self.are_within(items, item)),
            (Shape::Map(values), Value::Object(map)) => {
                map.values().any(|value| self.are_within(values, value))
            }
            _ => false,
        }
    }

    /// An object without them; nothing if it has none.
    pub fn without(self, resource: &Resource, object: &Object) -> Option<Object> {
        let schema = resource.schema.get().filter(|_| resource.custom.is_none())?;
        self.are_in(schema, &object.0).then(|| {
            let mut plain = object.clone();
            self.drop_from(schema, &mut plain.0);
            plain
        })
    }
}

/// Takes out of a valid object the empty lists and maps that were given and are not written, and gives one of a definition's
/// kind the defaults of what a write can't say, its status: the last step before it is stored. Readers see those at once, and
/// the next write is judged with them, as upstream.
pub fn settle(resource: &Resource, object: &mut Object) {
    if let Some(custom) = &resource.custom {
        // What fits: the memory of defaults has a bound, which those of the rest kept.
        let _ = custom.fill(object);
        return;
    }
    if let Some(plain) = Empties::All.without(resource, object) {
        *object = plain;
    }
}

fn is_empty(shape: &Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::List(_) | Shape::ObjectOrList(_), Value::Array(list)) => list.is_empty(),
        (Shape::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}
