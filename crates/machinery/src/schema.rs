//! Published schemas in a compact form, each read from its text when it is first used.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::apply::{Topology, topology};

/// What a field's value looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A text.
    Text,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// Any number.
    Number,
    /// A truth value.
    Boolean,
    /// Base64.
    Bytes,
    /// `Time` of meta/v1: whole seconds.
    Time,
    /// `MicroTime` of meta/v1: six digits of the second.
    MicroTime,
    /// A quantity, such as `100m`.
    Quantity,
    /// An integer or a text.
    IntOrString,
    /// Anything.
    Any,
    /// A JSON schema, of that schema, or whether anything goes.
    ObjectOrBoolean(SchemaRef),
    /// Likewise, or a list of them.
    ObjectOrList(SchemaRef),
    /// An object of that schema.
    Object(SchemaRef),
    /// A list of such values.
    List(Box<Shape>),
    /// A map from texts to such values.
    Map(Box<Shape>),
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PatchStrategy {
    /// Lists are merged by `merge_key`, or as sets where there is none.
    pub merge: bool,
    /// Fields that the patch doesn't name in `$retainKeys` go.
    pub retain_keys: bool,
    /// The field that tells the items of a list apart.
    pub merge_key: Option<&'static str>,
}

/// One field of a schema.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// What it is where it isn't there.
    pub default: Option<Value>,
    /// A published default that no object shows. Where the field tells the items of a list apart, it still does:
    /// in `imagePullSecrets: [{}]` the name is "".
    pub unseen_default: Option<Box<Value>>,
    /// The ends of paths at which an empty list or map differs from none.
    pub sees_empty: &'static [&'static str],
    /// The texts that it may be; any where there are none.
    pub choices: Box<[&'static str]>,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// How an apply merges it.
    pub topology: Topology,
    /// Whether an empty text, 0 or `false` says as much as nothing: a field of Go with `omitempty` that is no pointer.
    pub zero_is_nothing: bool,
    /// Whether a zero is a value that somebody chose.
    pub is_pointer: bool,
}

/// The fields of one schema, by name.
#[derive(Debug)]
pub struct Schema {
    /// Its name as published, such as `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// Whether writers own its objects as a whole.
    pub atomic: bool,
    /// An object of the schema that says nothing, made when it is first asked for.
    pub empty: OnceLock<serde_json::Map<String, Value>>,
    /// Fields that are `null` where there is nothing.
    pub nulls: &'static [&'static str],
    /// Fields whose types have names of their own in Go: `field=type`, each behind a blank.
    named: &'static str,
    fields: Box<[Field]>,
    /// The places of those fields that have a default.
    with_default: Box<[usize]>,
    /// The places of those fields that have choices.
    with_choices: Box<[usize]>,
}

impl Schema {
    fn new(
        name: &'static str,
        atomic: bool,
        (nulls, named): (&'static [&'static str], &'static str),
        fields: Box<[Field]>,
    ) -> Self {
        let places = |has: fn(&Field) -> bool| -> Box<[usize]> {
            fields.iter().enumerate().filter(|(_, field)| has(field)).map(|(place, _)| place).collect()
        };
        let with_default = places(|field| field.default.is_some());
        let with_choices = places(|field| !field.choices.is_empty());
        Schema { name, atomic, empty: OnceLock::new(), nulls, named, fields, with_default, with_choices }
    }

    /// Those of its fields that have a default.
    pub fn fields_with_default(&self) -> impl Iterator<Item = &Field> {
        self.with_default.iter().map(|place| &self.fields[*place])
    }

    /// Those of its fields that have choices.
    pub fn fields_with_choices(&self) -> impl Iterator<Item = &Field> {
        self.with_choices.iter().map(|place| &self.fields[*place])
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// The type of a field in Go, if that is none that its shape tells.
    pub(crate) fn named_type(&self, field: &str) -> Option<&'static str> {
        let types = self.named.split(' ').filter_map(|named| named.split_once('='));
        types.into_iter().find(|(name, _)| *name == field).map(|(_, named)| named)
    }

    /// Its fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// What published schemas don't tell of the types in Go that they were made from.
pub trait Untold: Sync {
    /// The fields that are written as `null` where there is nothing: they are no pointers, and are written always.
    fn nulls(&self, schema: &str) -> &'static [&'static str];

    /// Whether a default is published that nobody ever sees.
    fn is_omitted(&self, _schema: &str, _field: &str, _default: &Value) -> bool {
        false
    }

    /// The ends of paths at which upstream's validation tells an empty list or map in the field from none: an empty end is one of
    /// every path. What is kept for it is gone once the object is settled.
    fn sees_empty(&self, _schema: &str, _field: &str) -> &'static [&'static str] {
        &[]
    }

    /// Whether a schema without fields is that of an object all the same, which has none. Others are of anything.
    fn is_object_without_fields(&self, _schema: &str) -> bool {
        false
    }

    /// Whether the code of kinds holds the field against its choices.
    fn says_itself(&self, _schema: &str, _field: &str) -> bool {
        false
    }
}

/// A set of published schemas, each read when it is first asked for.
pub struct Schemas {
    /// In the order of their names: name, text, and what the text says.
    list: Box<[(&'static str, &'static str, OnceLock<Schema>)]>,
    /// By schema, the fields that are pointers to a text, a number or a truth value in Go: there a zero is a value.
    pointers: BTreeMap<&'static str, &'static str>,
    /// By schema, the fields whose types in Go the schema doesn't tell.
    named: BTreeMap<&'static str, &'static str>,
    untold: &'static dyn Untold,
    /// The set that those of this one may refer to.
    base: Option<&'static Schemas>,
}

/// One schema of a set.
#[derive(Clone, Copy)]
pub struct SchemaRef {
    schemas: &'static Schemas,
    number: usize,
}

impl SchemaRef {
    /// The schema, read if nobody asked for it before.
    pub fn get(self) -> &'static Schema {
        self.schemas.numbered(self.number)
    }
}

impl PartialEq for SchemaRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schemas, other.schemas) && self.number == other.number
    }
}

impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.schemas.list[self.number].0)
    }
}

/// The name of a schema, and where it is published.
#[derive(Clone, Copy)]
pub struct NamedSchema {
    /// Its name in OpenAPI documents.
    pub name: &'static str,
    schemas: Option<fn() -> &'static Schemas>,
}

impl NamedSchema {
    /// The schema of that name in a set.
    pub const fn of(schemas: fn() -> &'static Schemas, name: &'static str) -> Self {
        NamedSchema { name, schemas: Some(schemas) }
    }

    /// The name of a schema that is in no set: that of a definition's version.
    pub const fn unpublished(name: &'static str) -> Self {
        NamedSchema { name, schemas: None }
    }

    /// The schema; nothing if it is not published, or is no object's.
    pub fn get(self) -> Option<&'static Schema> {
        self.schemas.and_then(|schemas| schemas().named(self.name))
    }
}

impl fmt::Debug for NamedSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Schemas {
    /// The schemas in a text that has one a line, by name; `pointers` has the fields that are pointers, one schema a line, and
    /// `named` those whose types have names of their own in Go; `base` is another set that the schemas may refer to.
    pub fn new(
        published: &'static str,
        (pointers, named): (&'static str, &'static str),
        untold: &'static dyn Untold,
        base: Option<&'static Schemas>,
    ) -> Self {
        let lines = published.lines().filter_map(|line| {
            let (name, text) = line.strip_prefix('"')?.split_once("\":")?;
            Some((name, text.strip_suffix(',').unwrap_or(text), OnceLock::new()))
        });
        let by_schema = |text: &'static str| text.lines().filter_map(|line| line.split_once(' ')).collect();
        let (pointers, named) = (by_schema(pointers), by_schema(named));
        Schemas { list: lines.collect(), pointers, named, untold, base }
    }

    /// The schema of that name.
    pub fn named(&'static self, name: &str) -> Option<&'static Schema> {
        self.reference(name).map(SchemaRef::get)
    }

    /// The names of its own schemas, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().map(|(name, ..)| *name)
    }

    fn numbered(&'static self, number: usize) -> &'static Schema {
        let (name, text, schema) = &self.list[number];
        schema.get_or_init(|| match serde_json::from_str::<Published<'static>>(text) {
            Ok(published) => self.compact(name, published),
            Err(e) => unreachable!("{name} is part of the program, and a test reads each: {e}"),
        })
    }

    /// The schema of that name as published.
    pub fn published(&self, name: &str) -> Option<Value> {
        match self.find(name) {
            Some(number) => serde_json::from_str(self.list[number].1).ok(),
            None => self.base?.published(name),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.list.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()
    }

    /// Nothing for most schemas without fields: what they describe is no object.
    fn reference(&'static self, name: &str) -> Option<SchemaRef> {
        match self.find(name) {
            Some(number) => {
                let has_fields = self.list[number].1.contains("\"properties\":{");
                let is_object = has_fields || self.untold.is_object_without_fields(name);
                is_object.then_some(SchemaRef { schemas: self, number })
            }
            None => self.base?.reference(name),
        }
    }

    fn compact(&'static self, name: &'static str, schema: Published<'static>) -> Schema {
        let pointers: Vec<&str> =
            self.pointers.get(name).into_iter().flat_map(|fields| fields.split(' ')).collect();
        let fields = schema.properties.into_iter().flatten().map(|(field, property)| {
            let required = schema.required.contains(&field);
            let shape = self.shape(&property);
            let is_scalar = matches!(
                shape,
                Shape::Text | Shape::Bytes | Shape::Int32 | Shape::Int64 | Shape::Number | Shape::Boolean
            );
            let strategies = property.patch_strategy.unwrap_or_default();
            let choices = match self.untold.says_itself(name, field) {
                true => Box::default(),
                false => property.choices(),
            };
            let unseen = |default: &Value| self.untold.is_omitted(name, field, default);
            let (default, unseen_default) = match property.default.clone() {
                Some(default) if unseen(&default) => (None, Some(Box::new(default))),
                default => (default, None),
            };
            // An amount that must be there is written as 0 where there is none.
            let is_pointer = pointers.contains(&field);
            let zero = (required && !is_pointer && shape == Shape::Quantity).then(|| "0".into());
            Field {
                name: field,
                shape,
                required,
                zero_is_nothing: is_scalar
                    && !required
                    && !pointers.contains(&field)
                    && !self.has_default(name, field, &property),
                patch: PatchStrategy {
                    merge: strategies.split(',').any(|s| s == "merge"),
                    retain_keys: strategies.split(',').any(|s| s == "retainKeys"),
                    merge_key: property.merge_key,
                },
                // What nobody has a schema for is managed as one thing.
                topology: match property.names("RawExtension") {
                    true => Topology::Atomic,
                    false => topology(property.list_type, &property.list_keys, property.map_type),
                },
                default: default.or(zero),
                unseen_default,
                is_pointer,
                choices,
                sees_empty: self.untold.sees_empty(name, field),
            }
        });
        let atomic = schema.map_type == Some("atomic");
        let named = self.named.get(name).copied().unwrap_or_default();
        Schema::new(name, atomic, (self.untold.nulls(name), named), fields.collect())
    }

    fn shape(&'static self, schema: &Published<'_>) -> Shape {
        if let Some(reference) = schema.target() {
            let name = reference.trim_start_matches("#/components/schemas/");
            return match name.rsplit('.').next() {
                Some("Quantity") => Shape::Quantity,
                Some("IntOrString") => Shape::IntOrString,
                Some("Time") => Shape::Time,
                Some("MicroTime") => Shape::MicroTime,
                Some(or @ ("JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray")) => {
                    let of = if or.ends_with("Bool") { Shape::ObjectOrBoolean } else { Shape::ObjectOrList };
                    let schema = name.trim_end_matches("OrBool").trim_end_matches("OrArray");
                    self.reference(schema).map_or(Shape::Any, of)
                }
                _ => self.reference(name).map_or(Shape::Any, Shape::Object),
            };
        }
        match (schema.kind, schema.format) {
            (Some("string"), Some("byte")) => Shape::Bytes,
            (Some("string"), _) => Shape::Text,
            (Some("integer"), Some("int32")) => Shape::Int32,
            (Some("integer"), _) => Shape::Int64,
            (Some("number"), _) => Shape::Number,
            (Some("boolean"), _) => Shape::Boolean,
            (Some("array"), _) => {
                Shape::List(Box::new(schema.items.as_ref().map_or(Shape::Any, |items| self.shape(items))))
            }
            (Some("object"), _) => match &schema.additional {
                Some(values) => Shape::Map(Box::new(self.shape(values))),
                None => Shape::Any,
            },
            _ => Shape::Any,
        }
    }

    /// Whether a field is written with its default where a client says nothing: it has no `omitempty`.
    fn has_default(&self, schema: &str, field: &str, property: &Published<'_>) -> bool {
        let zero = |default: &Value| *default == "" || *default == 0 || *default == false;
        let default = property.default.as_ref();
        default.is_some_and(|default| zero(default) && !self.untold.is_omitted(schema, field, default))
    }
}

impl<'a> Published<'a> {
    /// The schema that this one refers to.
    fn target(&self) -> Option<&str> {
        self.reference.or_else(|| self.all_of.iter().find_map(|part| part.reference))
    }

    /// What a text may be, or each item of a list of them: there an empty one is never meant.
    fn choices(&self) -> Box<[&'a str]> {
        match &self.items {
            Some(items) if self.choices.is_empty() => {
                items.choices.iter().copied().filter(|choice| !choice.is_empty()).collect()
            }
            _ => self.choices.as_slice().into(),
        }
    }

    /// Whether this refers to a schema of that kind.
    fn names(&self, kind: &str) -> bool {
        self.target().and_then(|name| name.rsplit('.').next()) == Some(kind)
    }
}

/// A schema as published.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Published<'a> {
    #[serde(borrow)]
    properties: Option<BTreeMap<&'a str, Published<'a>>>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a str>,
    #[serde(borrow)]
    format: Option<&'a str>,
    #[serde(borrow)]
    items: Option<Box<Published<'a>>>,
    #[serde(borrow, rename = "additionalProperties")]
    additional: Option<Box<Published<'a>>>,
    #[serde(borrow, rename = "allOf")]
    all_of: Vec<Published<'a>>,
    #[serde(borrow, rename = "$ref")]
    reference: Option<&'a str>,
    default: Option<Value>,
    #[serde(borrow, rename = "enum")]
    choices: Vec<&'a str>,
    #[serde(borrow)]
    required: Vec<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-list-type")]
    list_type: Option<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-list-map-keys")]
    list_keys: Vec<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-map-type")]
    map_type: Option<&'a str>,
}
