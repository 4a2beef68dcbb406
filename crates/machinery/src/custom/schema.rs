//! A structural schema in the form in which objects are held against it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::pattern::Pattern;

/// Deeper schemas say nothing: definitions with such are refused.
const DEEPEST: usize = 64;

/// What a schema says of one value.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub kind: Kind,
    pub nullable: bool,
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub open: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// Whether there is an embedded resource somewhere below.
    pub holds_embedded: bool,
    pub properties: BTreeMap<Box<str>, Schema>,
    pub values: Option<Values>,
    pub items: Option<Box<Schema>>,
    pub default: Option<Value>,
    pub list: ListType,
    pub checks: Option<Box<Checks>>,
}

/// `type`
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// `additionalProperties`
#[derive(Debug)]
pub(super) enum Values {
    Any,
    Of(Box<Schema>),
}

/// `x-kubernetes-list-type`
#[derive(Debug, Default, PartialEq)]
pub(super) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a value of the right type must fulfil too.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub format: Option<String>,
    /// The number, and whether it is itself too little or too much.
    pub least: Option<(Value, bool)>,
    pub most: Option<(Value, bool)>,
    pub multiple_of: Option<Value>,
    pub shortest: Option<u64>,
    pub longest: Option<u64>,
    pub pattern: Option<Pattern>,
    pub fewest_items: Option<u64>,
    pub most_items: Option<u64>,
    pub fewest_properties: Option<u64>,
    pub most_properties: Option<u64>,
    pub required: Vec<String>,
    pub choices: Option<Vec<Value>>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Schema>,
}

impl Schema {
    /// The schema in a definition's `openAPIV3Schema`.
    pub fn of_resource(schema: &Value) -> Self {
        parse(schema, 0)
    }

    /// The schema of a field of an object.
    pub fn field(&self, name: &str) -> Option<Known<'_>> {
        if let Some(property) = self.properties.get(name) {
            return Some(Known::Schema(property));
        }
        match &self.values {
            Some(Values::Of(schema)) => Some(Known::Schema(schema)),
            Some(Values::Any) => Some(Known::Nothing),
            None => None,
        }
    }

    /// Whether an embedded resource stands below.
    fn finds_embedded(&self) -> bool {
        let is = |schema: &Schema| schema.embedded || schema.holds_embedded;
        self.properties.values().any(is)
            || self.items.as_deref().is_some_and(is)
            || matches!(&self.values, Some(Values::Of(values)) if is(values))
    }
}

/// What is known of a field that may be there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    Schema(&'a Schema),
    /// It may be there, and that is all.
    Nothing,
}

fn parse(schema: &Value, depth: usize) -> Schema {
    let Some(map) = schema.as_object().filter(|_| depth <= DEEPEST) else {
        return Schema { open: true, ..Schema::default() };
    };
    let flag = |field: &str| map.get(field).and_then(Value::as_bool).unwrap_or_default();
    let inner = |schema: &Value| Box::new(parse(schema, depth + 1));
    let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
    let schema = Schema {
        kind: match map.get("type").and_then(Value::as_str) {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        },
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        open: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        properties: properties
            .map(|(name, property)| (name.as_str().into(), parse(property, depth + 1)))
            .collect(),
        values: match map.get("additionalProperties") {
            Some(values @ Value::Object(_)) => Some(Values::Of(inner(values))),
            Some(Value::Bool(true)) => Some(Values::Any),
            _ => None,
        },
        items: map.get("items").filter(|items| items.is_object()).map(inner),
        default: map.get("default").cloned(),
        list: match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts(map.get("x-kubernetes-list-map-keys"))),
            _ => ListType::Atomic,
        },
        checks: checks(map, depth),
        holds_embedded: false,
    };
    Schema { holds_embedded: schema.finds_embedded(), ..schema }
}

fn checks(map: &Map<String, Value>, depth: usize) -> Option<Box<Checks>> {
    let number = |field: &str| map.get(field).and_then(Value::as_u64);
    let text = |field: &str| map.get(field).and_then(Value::as_str);
    let bound = |field: &str, exclusive: &str| {
        let value = map.get(field).filter(|value| value.is_number())?;
        Some((value.clone(), map.get(exclusive) == Some(&Value::Bool(true))))
    };
    let all = |field: &str| -> Vec<Schema> {
        let list = map.get(field).and_then(Value::as_array).into_iter().flatten();
        list.map(|schema| parse(schema, depth + 1)).collect()
    };
    const CHECKS: [&str; 17] = [
        "format",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "required",
        "enum",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    if !CHECKS.iter().any(|check| map.contains_key(*check)) {
        return None;
    }
    Some(Box::new(Checks {
        format: text("format").map(str::to_owned),
        least: bound("minimum", "exclusiveMinimum"),
        most: bound("maximum", "exclusiveMaximum"),
        multiple_of: map.get("multipleOf").filter(|value| value.is_number()).cloned(),
        shortest: number("minLength"),
        longest: number("maxLength"),
        pattern: text("pattern").filter(|pattern| !pattern.is_empty()).map(Pattern::new),
        fewest_items: number("minItems"),
        most_items: number("maxItems"),
        fewest_properties: number("minProperties"),
        most_properties: number("maxProperties"),
        required: texts(map.get("required")),
        choices: map.get("enum").and_then(Value::as_array).filter(|list| !list.is_empty()).cloned(),
        all_of: all("allOf"),
        any_of: all("anyOf"),
        one_of: all("oneOf"),
        not: map.get("not").filter(|not| not.is_object()).map(|not| parse(not, depth + 1)),
    }))
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
