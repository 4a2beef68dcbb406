//! What a value's parts are for merging: where the types come from.

use serde_json::{Map, Value};

use super::structural::{Struct, StructuralType};
use crate::resource::Resource;
use crate::schema::{Field, NamedSchema, Schema, Shape};

/// Where the types of an object come from.
#[derive(Debug, Clone, Copy)]
pub enum Typing<'a> {
    /// A built-in resource's published schema.
    Resource(&'a Resource),
    /// A published schema that is no resource's, such as that of scales.
    Published(NamedSchema),
    /// A custom resource's schema.
    Structural(&'a StructuralType),
    /// None: maps are merged field by field, lists are replaced.
    Deduced,
}

impl<'a> Typing<'a> {
    pub(super) fn root(self) -> Type<'a> {
        match self {
            Typing::Resource(resource) => match resource.custom() {
                Some(custom) => Type::Structural(custom.merging()),
                None => published(resource.schema),
            },
            Typing::Published(schema) => published(schema),
            Typing::Structural(root) => Type::Structural(root),
            Typing::Deduced => Type::Deduced,
        }
    }

    /// Calls `with` with what a writer of a new object starts from: the parts that every object of the type has,
    /// as upstream's typed empty object has them.
    pub(super) fn with_empty<T>(self, with: impl FnOnce(&Map<String, Value>) -> T) -> T {
        match self.root() {
            Type::Schema(schema) => with(schema.empty.get_or_init(|| zero(schema))),
            _ => with(&Map::new()),
        }
    }
}

fn published<'a>(schema: NamedSchema) -> Type<'a> {
    schema.get().map_or(Type::Deduced, Type::Schema)
}

/// Fields whose value is a struct are always there, and those that are required are `null` or nothing.
fn zero(schema: &Schema) -> Map<String, Value> {
    let mut map = Map::new();
    for field in schema.fields() {
        let value = match (&field.shape, &field.default) {
            (Shape::Object(of), Some(Value::Object(_))) => Value::Object(zero(of.get())),
            (_, Some(default)) if field.required || is_zero(default) => match default {
                Value::String(_) => "".into(),
                Value::Number(_) => 0.into(),
                Value::Bool(_) => false.into(),
                _ => Value::Null,
            },
            // Of lists those alone that are written as `null`, below.
            _ if field.required && !matches!(field.shape, Shape::List(_)) => Value::Null,
            _ => continue,
        };
        map.insert(field.name.to_owned(), value);
    }
    map.extend(schema.nulls.iter().map(|field| ((*field).to_owned(), Value::Null)));
    map
}

fn is_zero(default: &Value) -> bool {
    default == "" || default == false || default.as_i64() == Some(0)
}

/// How a list or a map is merged: `x-kubernetes-list-type`, `-list-map-keys`, `-map-type`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Topology {
    /// Lists are replaced, maps and objects merged.
    #[default]
    Usual,
    /// Replaced as a whole.
    Atomic,
    /// A list whose items are identified by these fields; by their value where there are none.
    Keyed(Box<[Box<str>]>),
}

impl Topology {
    /// How items are told apart; nothing where the list is replaced as a whole.
    pub(super) fn keys(&self) -> Option<&[Box<str>]> {
        match self {
            Topology::Keyed(keys) => Some(keys),
            Topology::Usual | Topology::Atomic => None,
        }
    }
}

/// What the extensions of a schema say.
pub(crate) fn topology(
    list_type: Option<&str>,
    keys: &[impl AsRef<str>],
    map_type: Option<&str>,
) -> Topology {
    match (list_type, map_type) {
        (Some("set"), _) => Topology::Keyed(Box::default()),
        (Some("map"), _) => Topology::Keyed(keys.iter().map(|key| key.as_ref().into()).collect()),
        (Some("atomic"), _) | (_, Some("atomic")) => Topology::Atomic,
        _ => Topology::Usual,
    }
}

/// The type of one value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type<'a> {
    Schema(&'a Schema),
    Shaped(&'a Shape, &'a Topology),
    Structural(&'a StructuralType),
    /// Taken from the value itself.
    Deduced,
}

/// How a value is taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Atom<'a> {
    /// Not at all: a scalar, or a list or a map that is replaced as a whole.
    Leaf,
    /// Into items.
    List { keys: &'a [Box<str>], items: Type<'a> },
    /// Into fields.
    Map(Fields<'a>),
}

/// What a value is, however it is merged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    Anything,
    Text,
    Number,
    Truth,
    /// A text, a number or a truth value.
    Scalar,
    /// Items, and how they are told apart where the list is merged.
    List {
        keys: Option<&'a [Box<str>]>,
        items: Type<'a>,
    },
    Map(Fields<'a>),
}

/// The fields of a map.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fields<'a> {
    Schema(&'a Schema),
    Values(&'a Shape),
    Struct(&'a Struct),
    Structural(&'a StructuralType),
    Deduced,
}

static USUAL: Topology = Topology::Usual;

impl<'a> Type<'a> {
    /// How `value` is taken apart; without a value, or for `null`, what it may be.
    pub fn atom(self, value: Option<&Value>) -> Atom<'a> {
        match self {
            Type::Schema(schema) if schema.atomic => Atom::Leaf,
            Type::Schema(schema) => Atom::Map(Fields::Schema(schema)),
            Type::Shaped(_, Topology::Atomic) => Atom::Leaf,
            Type::Shaped(Shape::Object(of), _) => Type::Schema(of.get()).atom(value),
            Type::Shaped(Shape::Map(values), _) => Atom::Map(Fields::Values(values)),
            Type::Shaped(Shape::List(items), Topology::Keyed(keys)) => {
                Atom::List { keys, items: Type::Shaped(items, &USUAL) }
            }
            Type::Shaped(Shape::Any | Shape::ObjectOrBoolean(_) | Shape::ObjectOrList(_), _) => {
                Type::Deduced.atom(value)
            }
            Type::Shaped(..) => Atom::Leaf,
            Type::Structural(structural) => structural.atom(value),
            Type::Deduced => match value {
                None | Some(Value::Null | Value::Object(_)) => Atom::Map(Fields::Deduced),
                Some(_) => Atom::Leaf,
            },
        }
    }

    /// What it is, however it is merged.
    pub fn form(self) -> Form<'a> {
        match self {
            Type::Schema(schema) => Form::Map(Fields::Schema(schema)),
            Type::Structural(structural) => structural.form(),
            Type::Deduced => Form::Anything,
            Type::Shaped(shape, topology) => match shape {
                Shape::Text | Shape::Bytes => Form::Text,
                Shape::Int32 | Shape::Int64 | Shape::Number => Form::Number,
                Shape::Boolean => Form::Truth,
                Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrString => Form::Scalar,
                Shape::Any | Shape::ObjectOrBoolean(_) | Shape::ObjectOrList(_) => Form::Anything,
                Shape::Object(of) => Type::Schema(of.get()).form(),
                Shape::Map(values) => Form::Map(Fields::Values(values)),
                Shape::List(items) => {
                    Form::List { keys: topology.keys(), items: Type::Shaped(items, &USUAL) }
                }
            },
        }
    }

    /// Whether what it is depends on the value.
    pub fn is_deduced(self) -> bool {
        match self {
            Type::Deduced
            | Type::Shaped(
                Shape::Any | Shape::ObjectOrBoolean(_) | Shape::ObjectOrList(_),
                Topology::Usual | Topology::Keyed(_),
            ) => true,
            Type::Structural(structural) => structural.is_deduced(),
            _ => false,
        }
    }

    /// The default of a field that tells the items of a list apart.
    pub fn key_default(self, key: &str) -> Option<&'a Value> {
        match self.form() {
            Form::Map(Fields::Schema(schema)) => {
                let field = schema.field(key)?;
                field.default.as_ref().or(field.unseen_default.as_deref())
            }
            Form::Map(Fields::Struct(fields)) => fields.key_default(key),
            _ => None,
        }
    }
}

impl<'a> Fields<'a> {
    /// The type of a field.
    pub fn of(self, name: &str) -> Type<'a> {
        match self {
            Fields::Schema(schema) => schema.field(name).map_or(Type::Deduced, of_field),
            Fields::Values(values) => Type::Shaped(values, &USUAL),
            Fields::Struct(fields) => fields.field(name).unwrap_or(Type::Deduced),
            Fields::Structural(values) => Type::Structural(values),
            Fields::Deduced => Type::Deduced,
        }
    }

    /// Whether the type names the field: such fields are no map's keys.
    pub fn declares(self, name: &str) -> bool {
        match self {
            Fields::Schema(schema) => schema.field(name).is_some(),
            Fields::Struct(fields) => fields.field(name).is_some(),
            _ => false,
        }
    }

    /// Whether an object may have the field.
    pub fn allows(self, name: &str) -> bool {
        match self {
            Fields::Schema(_) => self.declares(name),
            Fields::Struct(fields) => fields.is_open() || self.declares(name),
            _ => true,
        }
    }
}

fn of_field(field: &Field) -> Type<'_> {
    Type::Shaped(&field.shape, &field.topology)
}
