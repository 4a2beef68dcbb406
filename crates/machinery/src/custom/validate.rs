//! A custom object held against its schema.
//!
//! Says what upstream says (`pkg/apiserver/validation` of apiextensions-apiserver over kube-openapi's validation).
//! What a change leaves as it was is not held against it (KEP-4008: ratcheting).

use serde_json::{Map, Value};

use super::format;
use super::schema::{Checks, Kind, Known, ListType, Schema};
use crate::faults::{Faults, MOST_FAULTS};
use crate::status::Cause;

/// Adds the faults of a value at `path`; `old` is what it replaces, if there is one.
pub(super) fn validate(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, faults: &mut Faults) {
    let mut walk = Walk::at_path(path);
    walk.value(schema, value, old);
    faults.extend(walk.faults);
}

struct Walk {
    path: String,
    faults: Vec<Cause>,
    /// How much of what was asked of the value it fulfils, as kube-openapi counts it (`Result.MatchCount`): of several conditions
    /// that it doesn't fulfil, the one of the highest count is reported.
    matched: usize,
}

impl Walk {
    fn at_path(path: &str) -> Self {
        Walk { path: path.to_owned(), faults: Vec::new(), matched: 0 }
    }

    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>) {
        if old == Some(value) || self.faults.len() >= MOST_FAULTS {
            return;
        }
        let has_type = has_type(schema, value);
        if !has_type {
            self.wrong_type(schema, value);
        }
        self.count(schema, value, has_type);
        // In upstream's order: it decides what is reported first and last.
        let checks = schema.checks.as_deref();
        if let Some(checks) = checks.filter(|_| !value.is_null()) {
            self.conditions(checks, value, old);
        }
        match (checks, value) {
            (Some(checks), Value::String(text)) => self.text(checks, value, text),
            (Some(checks), Value::Number(_)) => self.number(schema, checks, value),
            (None, Value::Number(_)) => self.in_range(schema, value, "Checked"),
            (_, Value::Array(list)) => self.list(schema, checks, list, old),
            _ => {}
        }
        if let Some(checks) = checks {
            self.choices(schema, checks, value);
        }
        if let Value::Object(object) = value {
            self.object(schema, checks, object, old);
        }
    }

    /// Counts what there is to ask of a value itself: each question, those that are met, and the whole.
    fn count(&mut self, schema: &Schema, value: &Value, has_type: bool) {
        /// The conditions and the choices, which are asked for of any value, the conditions' own, and the whole.
        const OF_ANY: usize = 4;
        let format = schema.checks.as_ref().and_then(|checks| checks.format.as_deref());
        let is_typed = schema.kind != Kind::Any || schema.int_or_string || format.is_some();
        let of_kind = match value {
            Value::Null => return self.matched += usize::from(has_type),
            Value::Bool(_) => 0,
            Value::String(_) => {
                1 + usize::from(format.is_some_and(|format| format::is_known("string", format)))
            }
            Value::Number(_) | Value::Array(_) => 2,
            Value::Object(_) => 1,
        };
        self.matched += OF_ANY + of_kind + usize::from(is_typed) * (1 + usize::from(has_type));
    }

    fn list(&mut self, schema: &Schema, checks: Option<&Checks>, list: &[Value], old: Option<&Value>) {
        if let Some(items) = &schema.items {
            for (index, item) in list.iter().enumerate() {
                let before = old.and_then(|old| same_item(&schema.list, index, item, old));
                self.at(&format!("[{index}]"), |walk| walk.value(items, item, before));
            }
        }
        let Some(checks) = checks else { return };
        let count = list.len() as u64;
        if let Some(least) = checks.fewest_items.filter(|least| count < *least) {
            self.invalid(&count.into(), &format!("should have at least {least} items"));
        }
        if let Some(most) = checks.most_items.filter(|most| count > *most) {
            self.tell(Cause::too_many(self.field(), list.len(), most as usize));
        }
    }

    fn object(
        &mut self,
        schema: &Schema,
        checks: Option<&Checks>,
        object: &Map<String, Value>,
        old: Option<&Value>,
    ) {
        let count = object.len() as u64;
        if let Some(least) = checks.and_then(|checks| checks.fewest_properties).filter(|least| count < *least)
        {
            self.invalid(&count.into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = checks.and_then(|checks| checks.most_properties).filter(|most| count > *most) {
            self.tell(Cause::too_many(self.field(), object.len(), most as usize));
        }
        for (name, value) in object {
            let Some(Known::Schema(field)) = schema.field(name) else { continue };
            let inner = if self.path.is_empty() { name.clone() } else { format!(".{name}") };
            self.at(&inner, |walk| walk.value(field, value, old.and_then(|old| old.get(name))));
        }
        let required = checks.into_iter().flat_map(|checks| &checks.required);
        for name in required.filter(|name| !object.contains_key(*name)) {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.tell(Cause::required(format!("{}{dot}{name}", self.path), ""));
        }
    }

    fn at(&mut self, inner: &str, walk: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(inner);
        walk(self);
        self.path.truncate(length);
    }

    fn tell(&mut self, cause: Cause) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(cause);
        }
    }

    /// The path of faults; upstream's for the whole object is that of nothing.
    fn field(&self) -> String {
        if self.path.is_empty() { "<nil>".to_owned() } else { self.path.clone() }
    }

    fn invalid(&mut self, value: &Value, why: &str) {
        let why = format!("{} in body {why}", self.path);
        self.tell(Cause::invalid(self.field(), value, &why));
    }

    fn wrong_type(&mut self, schema: &Schema, value: &Value) {
        let expected = match schema.kind {
            _ if schema.int_or_string => "integer,string",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Any => return,
        };
        // A number's format says more than its type, also of what is no number.
        let format =
            number_format(schema).filter(|_| !value.is_string() && !value.is_array() && !value.is_null());
        let is_float = value.is_number() && value.as_i64().is_none();
        let (expected, found) = match (format, value) {
            (Some(format), Value::Number(_)) => (format, if is_float { "float64" } else { "int64" }),
            (Some(format), _) => (format, ""),
            (None, Value::Null) => (expected, "null"),
            (None, Value::Bool(_)) => (expected, "boolean"),
            (None, Value::Number(_)) => (expected, if is_float { "number" } else { "integer" }),
            (None, Value::String(_)) => (expected, "string"),
            (None, Value::Array(_)) => (expected, "array"),
            (None, Value::Object(_)) => (expected, "object"),
        };
        self.not_of_type(expected, &found.into());
    }

    fn not_of_type(&mut self, expected: &str, found: &Value) {
        let message =
            format!("Invalid value: {found}: {} in body must be of type {expected}: {found}", self.path);
        self.tell(Cause { reason: "FieldValueTypeInvalid".into(), message, field: self.field() });
    }

    fn choices(&mut self, schema: &Schema, checks: &Checks, value: &Value) {
        if let Some(choices) = &checks.choices
            && !(value.is_null() && schema.nullable)
            && !choices.iter().any(|choice| same(choice, value))
        {
            let texts: Vec<String> =
                choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.tell(Cause::not_supported(self.field(), value, &texts));
        }
    }

    fn text(&mut self, checks: &Checks, value: &Value, text: &str) {
        let length = || text.chars().count() as u64;
        if let Some(most) = checks.longest.filter(|most| text.len() as u64 > *most && length() > *most) {
            self.tell(Cause::too_long(self.field(), most as usize));
        } else if let Some(least) = checks.shortest.filter(|least| length() < *least) {
            self.invalid(value, &format!("should be at least {least} chars long"));
        } else if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(value, &format!("should match '{}'", pattern.text));
        }
        if let Some(format) = checks.format.as_ref().filter(|format| !format::fits(format, text)) {
            self.not_of_type(format, value);
        }
    }

    fn number(&mut self, schema: &Schema, checks: &Checks, value: &Value) {
        self.in_range(schema, value, "Checked");
        if let Some(factor) = &checks.multiple_of {
            self.in_range(schema, factor, "MultipleOf");
            if !is_multiple(value, factor) {
                self.invalid(value, &format!("should be a multiple of {factor}"));
            }
        }
        if let Some((least, _)) = &checks.least {
            self.in_range(schema, least, "Minimum boundary");
        }
        if let Some((least, exclusive)) = &checks.least
            && compare(value, least).is_some_and(|order| order.is_lt() || (*exclusive && order.is_eq()))
        {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            self.invalid(value, &format!("should be greater than{or_equal} {least}"));
        }
        if let Some((most, _)) = &checks.most {
            self.in_range(schema, most, "Maximum boundary");
        }
        if let Some((most, exclusive)) = &checks.most
            && compare(value, most).is_some_and(|order| order.is_gt() || (*exclusive && order.is_eq()))
        {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            self.invalid(value, &format!("should be less than{or_equal} {most}"));
        }
    }

    /// Whether a number is one of the schema's type and format, which limits of the schema must be as well as values
    /// (kube-openapi's `IsValueValidAgainstRange`); a fault that isn't about the field says so.
    fn in_range(&mut self, schema: &Schema, number: &Value, what: &str) {
        let (kind, format) = match schema.kind {
            Kind::Integer => ("integer", number_format(schema).unwrap_or_default()),
            Kind::Number => ("number", number_format(schema).unwrap_or_default()),
            _ if schema.int_or_string => ("integer", ""),
            _ => return,
        };
        let fits = match (kind, format) {
            ("integer", "int32") => whole(number).is_some_and(|number| i32::try_from(number).is_ok()),
            ("integer", _) => whole(number).is_some(),
            (_, "float") => number.as_f64().is_some_and(|number| number.abs() <= f64::from(f32::MAX)),
            _ => true,
        };
        if !fits {
            let why = format!("{what} value must be of type {kind} with format {format} in {}", self.path);
            self.tell(Cause::invalid("<nil>", &"".into(), &why));
        }
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`: what fails is reported for the object as a whole, and in detail: of `allOf` before it,
    /// of others behind it.
    fn conditions(&mut self, checks: &Checks, value: &Value, old: Option<&Value>) {
        let place = self.path.clone();
        let asked = |schema: &Schema| {
            let mut walk = Walk::at_path(&place);
            walk.value(schema, value, old);
            walk
        };
        if !checks.any_of.is_empty() {
            let mut told: Option<Walk> = None;
            for schema in &checks.any_of {
                let walk = asked(schema);
                let is_met = walk.faults.is_empty();
                if is_met || told.as_ref().is_none_or(|told| walk.matched > told.matched) {
                    told = Some(walk);
                }
                if is_met {
                    break;
                }
            }
            if let Some(told) = told {
                self.matched += told.matched;
                if !told.faults.is_empty() {
                    self.failed("must validate at least one schema (anyOf)", told.faults);
                }
            }
        }
        if !checks.one_of.is_empty() {
            let (mut met, mut told): (usize, Option<Walk>) = (0, None);
            for walk in checks.one_of.iter().map(asked) {
                let is_met = walk.faults.is_empty();
                let is_told =
                    met == 0 && (is_met || told.as_ref().is_none_or(|told| walk.matched > told.matched));
                met += usize::from(is_met);
                if is_told {
                    told = Some(walk);
                }
            }
            let found = match met {
                0 => "Found none valid".to_owned(),
                many => format!("Found {many} valid alternatives"),
            };
            let told = told.filter(|_| met <= 1).unwrap_or_else(|| Walk::at_path(&place));
            self.matched += told.matched;
            if met != 1 {
                self.failed(&format!("must validate one and only one schema (oneOf). {found}"), told.faults);
            }
        }
        let all: Vec<Walk> = checks.all_of.iter().map(asked).collect();
        self.matched += all.iter().map(|walk| walk.matched).sum::<usize>();
        if all.iter().any(|walk| !walk.faults.is_empty()) {
            let none = if all.iter().all(|walk| !walk.faults.is_empty()) { ". None validated" } else { "" };
            all.into_iter().flat_map(|walk| walk.faults).for_each(|detail| self.tell(detail));
            self.failed(&format!("must validate all the schemas (allOf){none}"), Vec::new());
        }
        if checks.not.as_ref().is_some_and(|not| asked(not).faults.is_empty()) {
            self.failed("must not validate the schema (not)", Vec::new());
        }
    }

    fn failed(&mut self, why: &str, details: Vec<Cause>) {
        let why = format!("{:?} {why}", self.path);
        self.tell(Cause::invalid("<nil>", &"".into(), &why));
        for detail in details {
            self.tell(detail);
        }
    }
}

/// The largest number that is taken for a whole one where it isn't written as an integer of 64 bits: 2^53-1, as upstream
/// (go-openapi's `IsFloat64AJSONInteger`).
const LARGEST_WHOLE: f64 = 9_007_199_254_740_991.0;

/// The format of a number, where it is one that upstream knows.
fn number_format(schema: &Schema) -> Option<&str> {
    let format = schema.checks.as_ref()?.format.as_deref()?;
    let kind = match schema.kind {
        Kind::Integer => "integer",
        Kind::Number => "number",
        _ => return None,
    };
    format::is_known(kind, format).then_some(format)
}

/// A number as an integer of 64 bits, if it is one.
#[allow(clippy::cast_possible_truncation, reason = "only numbers that fit")]
fn whole(number: &Value) -> Option<i64> {
    /// 2^63: the first number beyond.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let float = || number.as_f64().filter(|n| n.fract() == 0.0 && (-BEYOND..BEYOND).contains(n));
    number.as_i64().or_else(|| float().map(|n| n as i64))
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    if value.is_null() {
        // Conditions say no type, and leave that to the schema that they stand in.
        return schema.nullable || (schema.kind == Kind::Any && !schema.int_or_string);
    }
    let is_integer = |value: &Value| match value {
        Value::Number(number) if number.is_i64() => true,
        Value::Number(number) => {
            number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() <= LARGEST_WHOLE)
        }
        _ => false,
    };
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.kind {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => is_integer(value),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
    }
}

/// The item of the old list that an item replaces: that of the same keys. In other lists no item is known to replace one.
fn same_item<'a>(list: &ListType, index: usize, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let ListType::Map(keys) = list else { return None };
    let old = old.as_array()?;
    let is_same = |other: &Value| keys.iter().all(|key| other.get(key) == item.get(key));
    // Mostly it stands where it stood.
    old.get(index).filter(|other| is_same(other)).or_else(|| old.iter().find(|other| is_same(other)))
}

fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn is_multiple(value: &Value, factor: &Value) -> bool {
    match (value.as_i64(), factor.as_i64()) {
        (Some(value), Some(factor)) if factor != 0 => value.checked_rem(factor).is_none_or(|rest| rest == 0),
        _ => match (value.as_f64(), factor.as_f64()) {
            (Some(value), Some(factor)) if factor != 0.0 => (value / factor).fract() == 0.0,
            _ => true,
        },
    }
}

/// Whether two values are the same, however numbers are written.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => compare(left, right).is_some_and(|order| order.is_eq()),
        _ => left == right,
    }
}
