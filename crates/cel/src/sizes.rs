//! How long values of a schema may be, as far as the largest body of a request allows.
//!
//! Follows `pkg/cel/common/schemas.go` of apiserver.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use crate::types::{field_schema, is_resource};

/// The largest body of a request, in bytes: `MaxRequestSizeBytes` of apiserver's `pkg/apis/cel/config.go`. Costs depend on
/// it, so it stays as it is whatever a server really takes.
const LARGEST_BODY: u64 = 3 << 20;
/// Without the quotes or brackets around a value.
const LARGEST_VALUE: u64 = LARGEST_BODY - 2;
/// Definitions with deeper schemas are refused; the bound keeps anything else from filling the stack.
const DEEPEST: usize = 64;
/// The longest duration or moment as JSON, and the length of each date: `MaxDurationSizeJSON`, `MaxDatetimeSizeJSON` and
/// `JSONDateSize` of apiserver's `pkg/cel/limits.go`.
const LONGEST_TIME: u64 = 32;
const DATE: u64 = 12;
/// The least that a value takes as JSON, from the same file: `true`, a digit, `""`, `"0"`, and a moment with its quotes.
const BOOL: u64 = 4;
const NUMBER: u64 = 1;
const STRING: u64 = 2;
const DURATION: u64 = 3;
const DATE_TIME: u64 = 21;
/// The least that a list or an object takes.
const BRACKETS: u64 = 2;

/// A place in an object, by what its schema says of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SchemaPlace<'s> {
    /// A value of a schema.
    Of(&'s Value),
    /// A key of a map.
    Key,
}

/// The keys of a map.
pub(crate) const KEYS: SchemaPlace<'static> = SchemaPlace::Key;

impl<'s> SchemaPlace<'s> {
    /// The field of that name, as expressions write it.
    pub(crate) fn field(self, name: &str) -> Option<Self> {
        let SchemaPlace::Of(schema) = self else { return None };
        match values_of(schema) {
            Some(_) => None,
            None => field_schema(schema, name).map(SchemaPlace::Of),
        }
    }

    /// The items of a list, or the values of a map.
    pub(crate) fn values(self) -> Option<Self> {
        let SchemaPlace::Of(schema) = self else { return None };
        schema.get("items").or_else(|| values_of(schema)).map(SchemaPlace::Of)
    }
}

fn values_of(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|values| values.is_object())
}

fn text<'s>(schema: &'s Value, key: &str) -> &'s str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A limit that the schema sets; less than none is none.
fn limit(schema: &Value, key: &str) -> Option<u64> {
    let limit = schema.get(key)?;
    limit.as_u64().or_else(|| limit.as_i64().map(|_| 0))
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
}

/// Knows the sizes of schemas, each of which it looks at once.
#[derive(Debug, Default)]
pub struct Sizes<'s> {
    /// By the schema's place in memory, which it keeps while it is borrowed.
    least: RefCell<HashMap<*const Value, Option<u64>>>,
    schemas: std::marker::PhantomData<&'s Value>,
}

impl<'s> Sizes<'s> {
    /// The most items, entries or characters that a value may have; 0 for what has none. Nothing for what
    /// expressions don't see.
    pub(crate) fn most(&self, place: SchemaPlace<'s>) -> Option<u64> {
        let SchemaPlace::Of(schema) = place else { return Some(0) };
        // Schemas count characters and costs count bytes, of which a character has four at most.
        let of_text = || limit(schema, "maxLength").map(|most| most.saturating_mul(4));
        if is_int_or_string(schema) {
            return Some(of_text().unwrap_or(LARGEST_VALUE));
        }
        match (text(schema, "type"), text(schema, "format")) {
            ("array", _) => {
                let least = self.least(schema.get("items")?, 0)?;
                // Each item has a comma behind it.
                Some(limit(schema, "maxItems").unwrap_or(LARGEST_VALUE / least.saturating_add(1)))
            }
            ("object", _) => match values_of(schema) {
                None => Some(0),
                Some(values) => {
                    let least = self.least(values, 0)?;
                    // Each value has a key of two characters, its quotes, a colon and a comma.
                    Some(limit(schema, "maxProperties").unwrap_or(LARGEST_VALUE / least.saturating_add(6)))
                }
            },
            ("string", "byte") => Some(limit(schema, "maxLength").unwrap_or(LARGEST_VALUE)),
            ("string", "duration" | "date-time") => Some(LONGEST_TIME),
            ("string", "date") => Some(DATE),
            ("string", _) => Some(of_text().unwrap_or_else(|| match schema.get("enum") {
                Some(Value::Array(choices)) if !choices.is_empty() => {
                    let lengths = choices.iter().filter_map(Value::as_str).map(str::len);
                    lengths.max().unwrap_or(0) as u64
                }
                _ => LARGEST_VALUE,
            })),
            ("boolean" | "number" | "integer", _) => Some(0),
            _ => None,
        }
    }

    /// How often a value of the schema can stand in one object, where nothing but the largest body limits it.
    pub fn most_often(&self, schema: &'s Value) -> u64 {
        LARGEST_BODY / self.least(schema, 0).unwrap_or(1).saturating_add(1)
    }

    /// The fewest bytes of JSON that a value takes; nothing for what expressions don't see.
    fn least(&self, schema: &'s Value, depth: usize) -> Option<u64> {
        let place = std::ptr::from_ref(schema);
        if let Some(known) = self.least.borrow().get(&place) {
            return *known;
        }
        let found = if depth > DEEPEST { Some(1) } else { self.count(schema, depth + 1) };
        self.least.borrow_mut().insert(place, found);
        found
    }

    fn count(&self, schema: &'s Value, depth: usize) -> Option<u64> {
        if is_int_or_string(schema) {
            return Some(NUMBER);
        }
        match (text(schema, "type"), text(schema, "format")) {
            ("boolean", _) => Some(BOOL),
            ("number" | "integer", _) => Some(NUMBER),
            ("string", "duration") => Some(DURATION),
            ("string", "date") => Some(DATE),
            ("string", "date-time") => Some(DATE_TIME),
            ("string", _) => Some(STRING),
            ("array", _) => self.least(schema.get("items")?, depth).map(|_| BRACKETS),
            ("object", _) => match values_of(schema) {
                Some(values) => self.least(values, depth).map(|_| BRACKETS),
                None => Some(self.object(schema, depth)),
            },
            _ => None,
        }
    }

    /// The fields that must be there, and that nobody fills in.
    fn object(&self, schema: &'s Value, depth: usize) -> u64 {
        let required = schema.get("required").and_then(Value::as_array);
        let mut bytes = BRACKETS;
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let own = schema.get("properties").and_then(|all| all.get(name));
            let field = match name {
                "apiVersion" | "kind" | "metadata" if is_resource(schema) => field_schema(schema, name),
                _ => own,
            };
            let Some(field) = field.filter(|field| field.get("default").is_none()) else { continue };
            if let Some(least) = self.least(field, depth) {
                // The name's quotes, a colon and a comma.
                bytes = bytes.saturating_add(name.len() as u64 + 4).saturating_add(least);
            }
        }
        bytes
    }
}
