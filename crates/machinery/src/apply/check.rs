//! What an applied object must be before it can be merged: fields that its type has, lists whose items have
//! elements of their own.

use std::collections::HashSet;

use serde_json::Value;

use super::fields_v1::path_text;
use super::item::item_element;
use super::types::{Atom, Type};

/// The most faults that are reported: a person mends no more at a time, and an object can have a million.
const MOST: usize = 20;

/// Why `value` can't be of the type, in upstream's words.
pub(super) fn faults(of: Type<'_>, value: &Value) -> Vec<String> {
    let mut check = Check { path: Vec::new(), faults: Vec::new() };
    check.value(of, value);
    check.faults
}

struct Check {
    path: Vec<Box<str>>,
    faults: Vec<String>,
}

impl Check {
    fn fault(&mut self, why: &str) {
        if self.faults.len() < MOST {
            let path: Vec<&str> = self.path.iter().map(|element| &**element).collect();
            self.faults.push(format!("{}: {why}", path_text(&path)));
        }
    }

    fn value(&mut self, of: Type<'_>, value: &Value) {
        match (of.atom(Some(value)), value) {
            (Atom::List { keys, items }, Value::Array(list)) => {
                let mut seen = HashSet::with_capacity(list.len());
                for (index, item) in list.iter().enumerate() {
                    match item_element(keys, items, item) {
                        Err(why) => self.fault(&format!("element {index}: {why}")),
                        Ok(element) if seen.contains(&element) => {
                            let why = format!("duplicate entries for key {}", path_text(&[&element]));
                            self.fault(&why);
                        }
                        Ok(element) => {
                            seen.insert(element.clone());
                            self.path.push(element);
                            self.value(items, item);
                            self.path.pop();
                        }
                    }
                }
            }
            (Atom::Map(fields), Value::Object(map)) => {
                for (name, value) in map {
                    self.path.push(super::compare::field_element(name));
                    if fields.allows(name) {
                        self.value(fields.of(name), value);
                    } else {
                        self.fault("field not declared in schema");
                    }
                    self.path.pop();
                }
            }
            (Atom::List { .. }, other) if !other.is_null() => self.fault("expected list"),
            (Atom::Map(_), other) if !other.is_null() => self.fault("expected map"),
            _ => {}
        }
    }
}
